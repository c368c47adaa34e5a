// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import LoadModel

/// A drawing of lines over a common axis, as SVG.
struct Chart {
    struct Line {
        let name: String
        /// `a` to `d`: the page's colours.
        let color: String
        let values: [Double]

        init(_ name: String, _ color: String, _ values: [Double]) {
            self.name = name
            self.color = color
            self.values = values
        }
    }

    private static let (width, height, left, right, top, bottom) = (920.0, 220.0, 64.0, 12.0, 24.0, 24.0)

    private let xs: [Double]
    private let lines: [Line]
    private let isLogarithmic: Bool
    private let isFilled: Bool
    private let marks: [String]?
    private let unit: String
    private let dots: [String]

    /// Lines over `xs`, which are marked in `unit`s or by six `marks`; `dots` are classes of the first line's dots.
    init(
        _ xs: [Double], _ lines: [Line], isLogarithmic: Bool = false, isFilled: Bool = false, marks: [String]? = nil,
        unit: String = "s", dots: [String] = []
    ) {
        self.xs = xs
        self.lines = lines
        self.isLogarithmic = isLogarithmic
        self.isFilled = isFilled
        self.marks = marks
        self.unit = unit
        self.dots = dots
    }

    /// A whole number with commas between the thousands.
    static func grouped(_ value: Double) -> String {
        let digits = NumberText.short(value.rounded(), 0)
        let head = digits.count % 3
        return digits.enumerated().reduce(into: "") { text, digit in
            if digit.offset > 0, digit.offset % 3 == head { text += "," }
            text.append(digit.element)
        }
    }

    static func escaped(_ text: String) -> String {
        text.reduce(into: "") { result, character in
            switch character {
            case "&": result += "&amp;"
            case "<": result += "&lt;"
            case ">": result += "&gt;"
            case "\"": result += "&quot;"
            default: result.append(character)
            }
        }
    }

    /// The logarithm to base 2, to a few digits: for placing points.
    private static func logarithm(_ value: Double) -> Double {
        value <= 0 ? -20 : Double(value.exponent) + (value.significand - 1)
    }

    var svg: String {
        let all = lines.flatMap(\.values)
        guard xs.count > 1, let greatest = all.max() else { return "<p>The run was too short to draw.</p>" }
        let least = isLogarithmic ? max(all.filter { $0 > 0 }.min() ?? 1, greatest / 1e6) : 0
        let (low, high) = scale(least, max(greatest, isLogarithmic ? least * 2 : 1))
        func x(_ value: Double) -> Double {
            Self.left + (value - xs[0]) / max(xs[xs.count - 1] - xs[0], 1e-9) * (Self.width - Self.left - Self.right)
        }
        func y(_ value: Double) -> Double {
            let part = isLogarithmic ? (Self.logarithm(max(value, least)) - low) / (high - low) : value / high
            return Self.height - Self.bottom - part * (Self.height - Self.top - Self.bottom)
        }
        var text = "<svg viewBox=\"0 0 \(Int(Self.width)) \(Int(Self.height))\" role=\"img\">"
        for tick in ticks(low, high) {
            let place = NumberText.short(y(tick), 1)
            text += "<path class=\"grid\" d=\"M\(Int(Self.left)) \(place)H\(Int(Self.width - Self.right))\"/>"
            text +=
                "<text x=\"\(Int(Self.left) - 6)\" y=\"\(place)\" dy=\"4\" text-anchor=\"end\">"
                + "\(tick < 1000 ? NumberText.short(tick, tick < 1 ? 3 : 1) : Self.grouped(tick))</text>"
        }
        text += axis(x)
        if isFilled, let line = lines.first {
            let base = "V\(NumberText.short(y(0), 1))H\(NumberText.short(x(xs[0]), 1))Z"
            text += "<path class=\"area\" d=\"\(path(line.values, x, y))\(base)\"/>"
        }
        for (index, line) in lines.enumerated() {
            text += "<path class=\"\(line.color)\" d=\"\(path(line.values, x, y))\"/>"
            let place = Int(Self.left) + index * 140
            text +=
                "<path class=\"\(line.color)\" d=\"M\(place) 10h18\"/><text x=\"\(place + 24)\" y=\"14\">"
                + "\(Self.escaped(line.name))</text>"
        }
        for (place, kind) in dots.enumerated() where place < xs.count {
            let value = lines[0].values[place]
            guard !isLogarithmic || value > 0 else { continue }
            text +=
                "<circle class=\"\(kind)\" cx=\"\(NumberText.short(x(xs[place]), 1))\" "
                + "cy=\"\(NumberText.short(y(value), 1))\" r=\"4.5\"/>"
        }
        return text + "</svg>"
    }

    /// A line through the values. Where there was nothing to measure a logarithmic chart has a gap.
    private func path(_ values: [Double], _ x: (Double) -> Double, _ y: (Double) -> Double) -> String {
        var (text, isDrawing) = ("", false)
        for (place, value) in zip(xs, values) {
            guard !isLogarithmic || value > 0 else {
                isDrawing = false
                continue
            }
            text += (isDrawing ? "L" : "M") + "\(NumberText.short(x(place), 1)) \(NumberText.short(y(value), 1))"
            isDrawing = true
        }
        return text
    }

    private func scale(_ least: Double, _ greatest: Double) -> (Double, Double) {
        isLogarithmic ? (Self.logarithm(least), Self.logarithm(greatest) + 0.05) : (0, greatest * 1.05)
    }

    private func ticks(_ low: Double, _ high: Double) -> [Double] {
        guard isLogarithmic else {
            let step = Self.roundStep(high / 5)
            return (0...10).map { Double($0) * step }.filter { $0 <= high }
        }
        // Two decades and less have more than their powers of ten.
        let factors = high - low > 7 ? [1.0] : [1.0, 2, 5]
        var (power, found) = (1e-6, [Double]())
        while Self.logarithm(power) <= high {
            found += factors.map { $0 * power }.filter { (low...high).contains(Self.logarithm($0)) }
            power *= 10
        }
        return found
    }

    /// The least of 1, 2 and 5 times a power of ten that is not below `step`.
    static func roundStep(_ step: Double) -> Double {
        var power = 1e-9
        while power * 10 <= step { power *= 10 }
        return [1.0, 2, 5, 10].map { $0 * power }.first { $0 >= step * 0.999_999 } ?? step
    }

    private func axis(_ x: (Double) -> Double) -> String {
        let (first, last) = (xs[0], xs[xs.count - 1])
        var places = (0...5).map { first + (last - first) * Double($0) / 5 }
        var names = marks ?? []
        if marks == nil {
            // At round numbers, of which those too near to an end would be cut off.
            let step = Self.roundStep((last - first) / 8)
            let begin = (first / step).rounded(.up)
            places = (0...10).map { (begin + Double($0)) * step }.filter { $0 <= last + step * 1e-6 }
            names = places.map { place in
                (place < 1000 ? NumberText.short(place, step < 1 ? 2 : 0) : Self.grouped(place)) + unit
            }
        }
        return zip(places, names).map { place, name in
            let at = x(place)
            let anchor = at < Self.left + 12 ? "start" : at > Self.width - Self.right - 12 ? "end" : "middle"
            return "<text x=\"\(NumberText.short(at, 1))\" y=\"\(Int(Self.height) - 6)\" "
                + "text-anchor=\"\(anchor)\">\(name)</text>"
        }.joined()
    }
}
