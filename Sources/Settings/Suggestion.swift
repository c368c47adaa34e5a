// Martlet
// SPDX-License-Identifier: Apache-2.0

/// The one of `candidates` that somebody who wrote `word` most likely meant; nil when none is near.
///
/// Near is an edit distance (with transpositions) of at most 2, or a third of a long word, without regard to case.
package func suggestion(for word: String, among candidates: some Sequence<String>) -> String? {
    let limit = max(2, word.count / 3)
    var best: (name: String, distance: Int)?
    for candidate in candidates {
        let distance = editDistance(Array(word.lowercased()), Array(candidate.lowercased()))
        guard distance <= limit, distance < candidate.count else { continue }
        if let known = best, known.distance <= distance { continue }
        best = (candidate, distance)
    }
    return best?.name
}

/// How many insertions, deletions, replacements and swaps of neighbours turn one word into the other.
private func editDistance(_ left: [Character], _ right: [Character]) -> Int {
    var beforeLast: [Int] = []
    var last = Array(0...right.count)
    for row in 0..<left.count {
        var current = [row + 1]
        for column in 0..<right.count {
            let replaced = last[column] + (left[row] == right[column] ? 0 : 1)
            var best = min(replaced, last[column + 1] + 1, current[column] + 1)
            let isSwap = row > 0 && column > 0 && left[row] == right[column - 1] && left[row - 1] == right[column]
            if isSwap { best = min(best, beforeLast[column - 1] + 1) }
            current.append(best)
        }
        beforeLast = last
        last = current
    }
    return last[right.count]
}
