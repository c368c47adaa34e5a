// Martlet
// SPDX-License-Identifier: Apache-2.0

/// The writes of one key that storage has not answered, in the order of their submission. Taking the first is cheap
/// however many there are.
struct WriteQueue {
    private var elements: [WriteFlight] = []
    private var head = 0

    var count: Int { elements.count - head }
    var isEmpty: Bool { head == elements.count }

    subscript(index: Int) -> WriteFlight {
        _read { yield elements[head + index] }
        _modify { yield &elements[head + index] }
    }

    mutating func append(_ flight: WriteFlight) { elements.append(flight) }

    /// Takes the write with a token out: the first, as backends answer the writes of a key in order.
    mutating func remove(_ token: UInt64) -> WriteFlight? {
        guard let index = elements[head...].firstIndex(where: { $0.token == token }) else { return nil }
        let flight = elements[index]
        if index == head {
            elements[head].readers = []
            head += 1
        } else {
            elements.remove(at: index)
        }
        if isEmpty {
            elements.removeAll(keepingCapacity: elements.capacity <= 64)
            head = 0
        } else if head > 64, head * 2 > elements.count {
            elements.removeFirst(head)
            head = 0
        }
        return flight
    }
}
