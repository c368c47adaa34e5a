// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CJavaScript

// SAFETY (file): the cells and the key's bytes belong to arrays that are protected until the hub is released, and
// whose memory stays where it is meanwhile. A machine, its hub included, is used by one thread. Values are on the
// stack, where the collector looks for them, until the call that takes them.

/// A context of the machine's own that calls many contexts' functions in one entry, and the memory that scripts and the
/// host exchange numbers by: entering the machine, and each value that passes its border, cost more than most calls do.
@safe
final class ScriptHub {
    /// Values of a call at most: as many as are surely on the stack.
    static let valueLimit = 100
    /// Of an event at most.
    static let eventValueLimit = 3

    // Cells: how many events; which is under way, -1 for none; what `ask` asks: context, id, client, operation, the
    // key's length, whether bytes are wanted; then five of each event.
    private static let eventCells = 8
    private static let cellsOfEvent = 5
    private static let cellCount = eventCells + cellsOfEvent * ScriptEvent.limit
    private static let keyLimitBytes = 256

    private static let script = #"""
        (() => { 'use strict';
        const cells = globalThis.__cells, users = [];
        const add = (number, run, settle, fire) => { users[number] = { run, settle, fire }; };
        const dispatch = (...values) => {
            const count = cells[0];
            let used = 0;
            for (let event = 0, at = 8; event < count; event++, at += 5) {
                cells[1] = event;
                const user = users[cells[at + 1]], id = cells[at + 2], answer = cells[at + 3], taken = cells[at + 4];
                switch (cells[at]) {
                case 0: user.run(id); break;
                case 1:
                    if (taken === 0) user.settle(id, answer);
                    else if (taken === 1) user.settle(id, answer, values[used]);
                    else if (taken === 2) user.settle(id, answer, values[used], values[used + 1]);
                    else user.settle(id, answer, values[used], values[used + 1], values[used + 2]);
                    used += taken;
                    break;
                default: user.fire(id);
                }
            }
            cells[1] = -1;
        };
        return { add, dispatch };
        })()
        """#

    private let context: JSGlobalContextRef
    private let cellArray: JSObjectRef
    private let keyArray: JSObjectRef
    private let cells: UnsafeMutablePointer<Double>
    private let keyBytes: UnsafeMutablePointer<UInt8>
    private let addFunction: JSObjectRef
    private let dispatchFunction: JSObjectRef
    /// The users' contexts by number: what belongs to one, such as an array, is made in it.
    private var users: [Int: JSGlobalContextRef] = unsafe [:]

    /// Takes over a context that was just made.
    init(_ context: JSGlobalContextRef) {
        unsafe self.context = context
        var (cellArray, keyArray): (JSObjectRef?, JSObjectRef?) = (nil, nil)
        unsafe cells = martlet_js_numbers(context, Self.cellCount, &cellArray)
        unsafe keyBytes = martlet_js_octets(context, Self.keyLimitBytes, &keyArray)
        guard let cellArray = unsafe cellArray, let keyArray = unsafe keyArray else {
            preconditionFailure("no memory for a script's cells")
        }
        unsafe (self.cellArray, self.keyArray) = (cellArray, keyArray)
        unsafe cells[1] = -1
        unsafe martlet_js_set(context, martlet_js_global(context), "__cells", cellArray)
        let made = unsafe evaluateScript(Array(Self.script.utf8), Prelude.url, context, nil)
        guard let made = unsafe made, let add = unsafe martlet_js_get(context, made, "add"),
            let dispatch = unsafe martlet_js_get(context, made, "dispatch")
        else { preconditionFailure("the hub's script does not run") }
        unsafe (addFunction, dispatchFunction) = (add, dispatch)
        unsafe martlet_js_protect(context, addFunction)
        unsafe martlet_js_protect(context, dispatchFunction)
    }

    /// Ends it, before its group ends.
    func release() { unsafe martlet_js_release_context(context) }

    /// Lets the scripts of `other` see the cells and the key's bytes.
    func show(to other: JSGlobalContextRef) {
        unsafe martlet_js_set(other, martlet_js_global(other), "__cells", cellArray)
        unsafe martlet_js_set(other, martlet_js_global(other), "__key", keyArray)
    }

    func add(_ number: Int, _ user: JSGlobalContextRef, _ functions: [JSObjectRef]) {
        unsafe users[number] = user
        // They are protected by whoever made them, and a number is no object.
        let values: [JSValueRef?] = unsafe [martlet_js_number(context, Double(number))] + functions
        unsafe values.withUnsafeBufferPointer { buffer in
            _ = unsafe martlet_js_call(context, addFunction, buffer.count, buffer.baseAddress, nil)
        }
    }

    /// Which event is called now.
    var current: Int? {
        let event = unsafe cells[1]
        return event < 0 ? nil : Int(event)
    }

    /// What the running script asks for.
    var ask: ScriptAsk {
        unsafe ScriptAsk(
            context: Int(cells[2]), id: cells[3], client: Int(cells[4]), operation: Int(cells[5]),
            wantsBytes: cells[7] != 0)
    }

    /// The key that it asks for.
    var key: Span<UInt8> {
        @_lifetime(borrow self)
        get {
            let length = unsafe min(max(0, Int(cells[6])), Self.keyLimitBytes)
            let bytes = unsafe UnsafeBufferPointer(start: UnsafePointer(keyBytes), count: length)
            return unsafe _overrideLifetime(Span(_unsafeElements: bytes), borrowing: self)
        }
    }

    /// See ``ScriptMachine/dispatch(_:_:)``.
    func dispatch(_ events: ArraySlice<ScriptEvent>, _ bytes: [UInt8]) -> (handled: Int, problem: String?) {
        var exception: JSValueRef?
        let handled = unsafe withUnsafeTemporaryAllocation(of: JSValueRef?.self, capacity: Self.valueLimit) { values in
            var (used, count, cell) = (0, 0, Self.eventCells)
            for event in events.prefix(ScriptEvent.limit) where used + Self.eventValueLimit <= Self.valueLimit {
                let before = used
                switch event.slice {
                case .none: break
                case .text(let range):
                    unsafe values.initializeElement(at: used, to: makeText(bytes, range, context))
                    used += 1
                case .bytes(let range):
                    let home = unsafe users[event.context] ?? context
                    let value = unsafe bytes.withUnsafeBytes { all in
                        unsafe martlet_js_bytes(
                            home, UnsafeRawBufferPointer(rebasing: all[range]).baseAddress, range.count)
                    }
                    unsafe values.initializeElement(at: used, to: value)
                    used += 1
                }
                for value in event.values.prefix(Self.eventValueLimit) {
                    unsafe values.initializeElement(at: used, to: make(value, context))
                    used += 1
                }
                unsafe cells[cell] = Double(event.kind.rawValue)
                unsafe cells[cell + 1] = Double(event.context)
                unsafe cells[cell + 2] = event.id
                unsafe cells[cell + 3] = Double(event.answer)
                unsafe cells[cell + 4] = Double(used - before)
                cell += Self.cellsOfEvent
                count += 1
            }
            unsafe cells[0] = Double(count)
            unsafe cells[1] = -1
            _ = unsafe martlet_js_call(context, dispatchFunction, used, values.baseAddress, &exception)
            return count
        }
        guard let exception = unsafe exception else { return (handled, nil) }
        let last = unsafe cells[1] < 0 ? handled : min(handled, Int(cells[1]) + 1)
        unsafe cells[1] = -1
        return (last, unsafe describe(exception, context))
    }

    /// The text in a range of bytes that a zero follows.
    private func makeText(_ bytes: [UInt8], _ range: Range<Int>, _ context: JSContextRef) -> JSValueRef? {
        guard range.upperBound < bytes.count, bytes.span.extracting(range).isPlainText else {
            return unsafe ScriptEngine.makeText(Array(bytes[range]), context)
        }
        return unsafe bytes.withUnsafeBytes { all in
            guard let base = all.baseAddress else { return nil }
            return unsafe martlet_js_text(context, (base + range.lowerBound).assumingMemoryBound(to: CChar.self))
        }
    }
}

extension Span<UInt8> {
    /// Whether all bytes are ASCII other than zero.
    fileprivate var isPlainText: Bool {
        for index in indices where self[index] == 0 || self[index] >= 128 { return false }
        return true
    }
}
