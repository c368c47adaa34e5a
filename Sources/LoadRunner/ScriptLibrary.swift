// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import LoadModel
internal import Platform
internal import ScriptEngine

/// The modules and the shared arrays of a test's scripts, for all threads.
final class ScriptLibrary: Sendable {
    /// Bytes of a module or an opened file at most.
    static let sizeLimitBytes = 256 << 20

    /// The main module.
    let path: String
    /// Its directory: what `open` starts from.
    let directory: String
    private let scripts = Guarded<[String: [UInt8]]>([:])
    private let arrays = Guarded<[String: [[UInt8]]]>([:])
    private let sleeps = Guarded(false)
    private let files: TestFiles

    init(path: String, _ files: TestFiles) {
        self.files = files
        let here = Environment.workingDirectory ?? "."
        let whole = Self.normalised(path.hasPrefix("/") ? path : here + "/" + path)
        self.path = whole
        directory = Self.parent(whole)
    }

    static func parent(_ path: String) -> String {
        guard let slash = path.lastIndex(of: "/") else { return "." }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }

    /// `path` without `.` and `..`.
    static func normalised(_ path: String) -> String {
        var parts: [Substring] = []
        for part in path.split(separator: "/") {
            if part == ".." { _ = parts.popLast() } else if part != "." { parts.append(part) }
        }
        return (path.hasPrefix("/") ? "/" : "") + parts.joined(separator: "/")
    }

    /// Modules that scripts get from the net, and that are built in here instead.
    private static let known = [
        ("https://jslib.k6.io/k6-utils/", "martlet:utils"), ("https://jslib.k6.io/k6-summary/", "martlet:summary"),
    ]

    /// Modules of the prelude.
    private static let builtIn: Set<String> = [
        "k6", "k6/metrics", "k6/data", "k6/execution", "k6/timers", "k6/encoding", "k6/x/memcached",
    ]

    /// The path of the module `name` that the module at `importer` asks for, or of the main module when that is empty.
    func resolve(_ name: String, from importer: String) throws(ScriptProblem) -> String {
        if importer.isEmpty, name == path { return path }
        if let builtIn = Self.known.first(where: { name.hasPrefix($0.0) }) { return builtIn.1 }
        if name.hasPrefix("http://") || name.hasPrefix("https://") {
            throw ScriptProblem("the module '\(name)' is on the net: save it beside the script and import that")
        }
        let local = name.hasPrefix("file://") ? String(name.dropFirst(7)) : name
        guard local.hasPrefix("/") || local.hasPrefix("./") || local.hasPrefix("../") else {
            throw ScriptProblem(
                "the module '\(name)' is not supported; there are k6, k6/data, k6/encoding, k6/execution, k6/metrics, "
                    + "k6/timers and k6/x/memcached")
        }
        if local.hasSuffix(".ts") {
            throw ScriptProblem("the module '\(name)' is TypeScript, which is not supported: give its JavaScript")
        }
        let base = importer.isEmpty ? directory : Self.parent(importer)
        let path = Self.normalised(local.hasPrefix("/") ? local : base + "/" + local)
        guard files.has(path) else {
            throw ScriptProblem("the module '\(name)' is not there: no file \(path)")
        }
        return path
    }

    /// The script of the module at `path`.
    func load(_ path: String) throws(ScriptProblem) -> [UInt8] {
        if let known = scripts.withLock({ $0[path] }) { return known }
        let source: [UInt8]
        do throws(SystemError) {
            source = try files.read(path, limitBytes: Self.sizeLimitBytes)
        } catch {
            throw ScriptProblem("\(path): \(error.reason)")
        }
        let transform: ModuleTransform
        do throws(ModuleTransform.Failure) {
            transform = try ModuleTransform(source)
        } catch {
            throw ScriptProblem("\(path):\(error.line): \(error.reason)")
        }
        for request in transform.requests where !Self.builtIn.contains(request.name) {
            do throws(ScriptProblem) {
                _ = try resolve(request.name, from: path)
            } catch {
                throw ScriptProblem("\(path):\(request.line): \(error.description)")
            }
        }
        let doesSleep = transform.requests.contains { request in
            request.name == "k6" && request.bindings.contains { ["sleep", "*", "default"].contains($0) }
        }
        if doesSleep { sleeps.withLock { $0 = true } }
        scripts.withLock { $0[path] = transform.script }
        return transform.script
    }

    /// Whether a module that was loaded can call k6's `sleep`, which stops its thread.
    var canSleep: Bool { sleeps.withLock { $0 } }

    /// The file that `open` names.
    func open(_ name: String) throws(ScriptProblem) -> [UInt8] {
        let local = name.hasPrefix("file://") ? String(name.dropFirst(7)) : name
        let path = Self.normalised(local.hasPrefix("/") ? local : directory + "/" + local)
        do throws(SystemError) {
            return try files.read(path, limitBytes: Self.sizeLimitBytes)
        } catch {
            throw ScriptProblem("open('\(name)'): \(path): \(error.reason)")
        }
    }

    /// How many elements the shared array has; nil when nobody made it yet.
    func arrayLength(_ name: String) -> Int? { arrays.withLock { $0[name]?.count } }

    /// Makes the shared array, unless somebody was faster; how many elements it has.
    func makeArray(_ name: String, _ elements: [[UInt8]]) -> Int {
        arrays.withLock { arrays in
            if let known = arrays[name] { return known.count }
            arrays[name] = elements
            return elements.count
        }
    }

    /// An element as JSON.
    func element(_ name: String, _ index: Int) -> [UInt8]? {
        arrays.withLock { arrays in
            guard let array = arrays[name], array.indices.contains(index) else { return nil }
            return array[index]
        }
    }
}
