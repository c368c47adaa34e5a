// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import MemcacheProtocol

/// Takes apart what is in `input`, and calls `take` with each line that is whole, its data block included, and with
/// what the line's places are in. Returns how many bytes are done with, how many must be there before more can be, and
/// what is wrong, if anything is.
@inline(__always)
func readReplies(
    _ input: borrowing InputBuffer, _ take: (_ unit: ReplyUnit, _ span: Span<UInt8>) -> Void
) -> (taken: Int, needed: Int, defect: String?) {
    let span = input.span
    var offset = 0
    while offset < span.count {
        switch ReplyParser.next(in: span, at: offset) {
        case .incomplete: return (offset, span.count - offset + 1, nil)
        case .malformed(let defect): return (offset, 1, defect.description)
        case .unit(let unit):
            guard unit.end <= span.count else { return (offset, unit.end - offset, nil) }
            if unit.kind.hasBlock, !ReplyParser.isTerminated(unit, in: span) {
                return (offset, 1, ReplyDefect.blockWithoutEnd.description)
            }
            take(unit, span)
            offset = unit.end
        }
    }
    return (offset, 1, nil)
}
