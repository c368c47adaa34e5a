// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CJavaScript

// SAFETY (file): a machine and its contexts are used by one thread, which is the user's rule below. Handles live from
// their making to their release in a deinit; values are used in the call that gave them, or protected. Strings are
// terminated copies that live for the call.

/// A virtual machine of JavaScriptCore, for one thread: it makes contexts, whose objects are apart from each other's.
@safe
package final class ScriptMachine {
    private let group: JSContextGroupRef
    /// What many contexts' functions are called by at once.
    fileprivate let hub: ScriptHub
    fileprivate var host: (any ScriptHost)?
    /// Asked now and then while a script runs: whether it must end. Nobody is asked when it is nil.
    package var mustEnd: (() -> Bool)?

    /// What says that scripts can be run here, or why not: the library is a package of its own.
    package static func problem() -> ScriptProblem? {
        guard let reason = unsafe martlet_js_load() else { return nil }
        return ScriptProblem(
            "scripts need JavaScriptCore: install Debian's package libjavascriptcoregtk-4.1-0 "
                + "(\(unsafe String(cString: reason))). Workloads without script need nothing.")
    }

    /// Makes a machine whose scripts call `host`. For use on this thread only.
    package init(host: any ScriptHost) throws(ScriptProblem) {
        if let problem = Self.problem() { throw problem }
        unsafe group = martlet_js_make_group()
        hub = unsafe ScriptHub(martlet_js_make_context(group))
        self.host = host
        unsafe martlet_js_set_host(Unmanaged.passUnretained(self).toOpaque())
    }

    deinit {
        hub.release()
        unsafe martlet_js_release_group(group)
    }

    /// Has events call `run(id)`, `settle(id, answer, values…)` and `fire(id)` of `context`.
    package func join(_ context: ScriptContext, run: ScriptFunction, settle: ScriptFunction, fire: ScriptFunction) {
        unsafe hub.add(context.number, context.context, [run.object, settle.object, fire.object])
    }

    /// Calls what `events` say, in their order, in one entry of the machine; what follows from settled promises runs
    /// behind the last. There are at most ``ScriptEvent/limit``, of each context at most one that settles a promise.
    /// `bytes` is what their texts are ranges of. Returns how many were handled, and what ended them when that was an
    /// exception: of the last one that counts as handled.
    package func dispatch(_ events: ArraySlice<ScriptEvent>, _ bytes: [UInt8]) -> (handled: Int, problem: String?) {
        hub.dispatch(events, bytes)
    }

    /// Which of the events under way is called now; nil between and behind them.
    package var currentEvent: Int? { hub.current }

    /// Looks at ``mustEnd`` each time a script has run for `seconds` without a pause.
    package func watch(everySeconds seconds: Double) {
        unsafe martlet_js_limit_time(
            group, seconds,
            { _, user in
                guard let user = unsafe user else { return false }
                return unsafe Unmanaged<ScriptMachine>.fromOpaque(user).takeUnretainedValue().mustEnd?() ?? false
            }, Unmanaged.passUnretained(self).toOpaque())
    }

    fileprivate func makeContext() -> JSGlobalContextRef {
        guard let context = unsafe martlet_js_make_context(group) else {
            preconditionFailure("no memory for a script's context")
        }
        unsafe hub.show(to: context)
        return unsafe context
    }
}

/// A function of a context, kept for later.
@safe
package final class ScriptFunction {
    fileprivate let object: JSObjectRef
    private let context: ScriptContext

    fileprivate init(_ object: JSObjectRef, _ context: ScriptContext) {
        unsafe self.object = object
        self.context = context
        unsafe martlet_js_protect(context.context, object)
    }

    deinit { unsafe martlet_js_unprotect(context.context, object) }
}

/// A global object of its own in a machine, with one host function, which evaluated scripts get as they like.
@safe
package final class ScriptContext {
    fileprivate let context: JSGlobalContextRef
    private let machine: ScriptMachine
    /// The number that the host knows it by.
    package let number: Int

    /// Makes a context in `machine`, on its thread. Allocates about 100 KiB.
    package init(_ machine: ScriptMachine, number: Int) {
        self.machine = machine
        self.number = number
        unsafe context = machine.makeContext()
        // What the host is told the context by; scripts do not see it once the prelude took the function away.
        let function = unsafe martlet_js_make_function(context, "__host", hostFunction)
        unsafe martlet_js_set(context, martlet_js_global(context), "__host", function)
        let ask = unsafe martlet_js_make_function(context, "__ask", askFunction)
        unsafe martlet_js_set(context, martlet_js_global(context), "__ask", ask)
    }

    deinit { unsafe martlet_js_release_context(context) }

    /// Evaluates `script`, which errors call `url`, and returns the object called `names` of what it gives, each a
    /// function.
    package func functions(
        _ names: [String], of script: [UInt8], url: String
    ) throws(ScriptProblem) -> [ScriptFunction] {
        let value = unsafe try evaluate(script, url)
        guard unsafe martlet_js_type(context, value) == 5 else { throw ScriptProblem("\(url): gives no object") }
        var result: [ScriptFunction] = []
        for name in names {
            let member = unsafe martlet_js_get(context, value, name)
            guard unsafe martlet_js_type(context, member) == 5, let object = unsafe member else {
                throw ScriptProblem("\(url): gives no \(name)")
            }
            unsafe result.append(ScriptFunction(object, self))
        }
        return result
    }

    /// Calls `function`. What it gives is undefined when it is an object. An exception is a problem.
    package func call(_ function: ScriptFunction, _ arguments: [ScriptValue]) throws(ScriptProblem) -> ScriptValue {
        precondition(arguments.count <= ScriptHub.valueLimit, "too many arguments")
        var exception: JSValueRef?
        // SAFETY: on the stack, where the collector looks for values; as many as there are arguments.
        let value = unsafe withUnsafeTemporaryAllocation(of: JSValueRef?.self, capacity: ScriptHub.valueLimit) {
            values in
            for (index, argument) in arguments.enumerated() {
                unsafe values.initializeElement(at: index, to: make(argument, context))
            }
            return unsafe martlet_js_call(context, function.object, arguments.count, values.baseAddress, &exception)
        }
        if let exception = unsafe exception { throw unsafe ScriptProblem(describe(exception, context)) }
        return unsafe take(value, context)
    }

    /// Has `function` called with each promise that is rejected and handled by nobody, and what it is rejected with.
    package func catchRejections(_ function: ScriptFunction) {
        unsafe martlet_js_catch_rejections(context, function.object)
    }

    /// Frees what is no longer in use.
    package func collect() { unsafe martlet_js_collect(context) }

    private func evaluate(_ script: [UInt8], _ url: String) throws(ScriptProblem) -> JSValueRef? {
        var exception: JSValueRef?
        let value = unsafe evaluateScript(script, url, context, &exception)
        if let exception = unsafe exception { throw unsafe ScriptProblem(describe(exception, context)) }
        return unsafe value
    }
}

/// What a script asks for by a request of a single key, in numbers that both sides see.
package struct ScriptAsk {
    /// The context's number.
    package let context: Int
    /// What the context calls the request.
    package let id: Double
    /// The client's number.
    package let client: Int
    /// The operation's number.
    package let operation: Int
    /// Whether the value is to be bytes.
    package let wantsBytes: Bool
}

/// The arguments of a call of the host: valid during the call.
@safe
package struct ScriptArguments: ~Copyable {
    private let context: JSContextRef
    private let values: UnsafePointer<JSValueRef?>?
    /// How many there are.
    package let count: Int

    fileprivate init(_ context: JSContextRef, _ values: UnsafePointer<JSValueRef?>?, _ count: Int) {
        unsafe self.context = context
        unsafe self.values = values
        self.count = count
    }

    private func value(_ index: Int) -> JSValueRef? {
        guard index >= 0, index < count, let values = unsafe values else { return nil }
        return unsafe values[index]
    }

    /// Whether there is no such argument, or it is undefined or null.
    package func isMissing(_ index: Int) -> Bool {
        guard let value = unsafe value(index) else { return true }
        return unsafe martlet_js_type(context, value) <= 1
    }

    /// An argument as a number; NaN when there is none.
    package func number(_ index: Int) -> Double {
        guard let value = unsafe value(index) else { return .nan }
        return unsafe martlet_js_to_number(context, value)
    }

    /// An argument, a number or a BigInt, as 64 bits; 0 when there is none.
    package func word(_ index: Int) -> UInt64 {
        guard let value = unsafe value(index) else { return 0 }
        return unsafe martlet_js_to_uint64(context, value)
    }

    /// An argument as a whole number; 0 for what is none.
    package func integer(_ index: Int) -> Int { Int(exactly: number(index).rounded()) ?? 0 }

    /// Whether an argument counts as true.
    package func truth(_ index: Int) -> Bool {
        guard let value = unsafe value(index) else { return false }
        return unsafe martlet_js_truth(context, value)
    }

    /// An argument as text; empty when there is none.
    package func text(_ index: Int) -> String { String(decoding: bytes(index), as: UTF8.self) }

    /// The UTF-8 of an argument as text, or the bytes of one that is an array of bytes.
    package func bytes(_ index: Int) -> [UInt8] {
        guard let value = unsafe value(index) else { return [] }
        if unsafe martlet_js_type(context, value) == 5 {
            var length = 0
            if let view = unsafe martlet_js_view(context, value, &length) {
                return unsafe [UInt8](UnsafeRawBufferPointer(start: view, count: length))
            }
        }
        return unsafe string(martlet_js_to_string(context, value)) ?? []
    }
}

/// The one function that scripts have of the host: `__host(context, operation, arguments…)`.
private func hostFunction(
    _ context: JSContextRef?, _ function: JSObjectRef?, _ this: JSObjectRef?, _ count: Int,
    _ arguments: UnsafePointer<JSValueRef?>?, _ exception: UnsafeMutablePointer<JSValueRef?>?
) -> JSValueRef? {
    guard let context = unsafe context, let pointer = unsafe martlet_js_host() else { return nil }
    let machine = unsafe Unmanaged<ScriptMachine>.fromOpaque(pointer).takeUnretainedValue()
    guard let host = machine.host, count >= 2, let values = unsafe arguments else {
        return unsafe martlet_js_undefined(context)
    }
    let number = unsafe Int(martlet_js_to_number(context, values[0]))
    let operation = unsafe Int(martlet_js_to_number(context, values[1]))
    do throws(ScriptProblem) {
        let answer = try host.call(number, operation, unsafe ScriptArguments(context, values + 2, count - 2))
        if case .script(let text, let url) = answer { return unsafe evaluateScript(text, url, context, exception) }
        return unsafe make(answer, context)
    } catch {
        unsafe exception?.pointee = martlet_js_error(context, error.description)
        return unsafe martlet_js_undefined(context)
    }
}

/// The other function that scripts have of the host: `__ask()`, with what is asked in the hub's cells and the key's
/// bytes beside them, so that nothing is taken apart.
private func askFunction(
    _ context: JSContextRef?, _ function: JSObjectRef?, _ this: JSObjectRef?, _ count: Int,
    _ arguments: UnsafePointer<JSValueRef?>?, _ exception: UnsafeMutablePointer<JSValueRef?>?
) -> JSValueRef? {
    guard let context = unsafe context, let pointer = unsafe martlet_js_host() else { return nil }
    let machine = unsafe Unmanaged<ScriptMachine>.fromOpaque(pointer).takeUnretainedValue()
    do throws(ScriptProblem) {
        let hub = machine.hub
        try machine.host?.ask(hub.ask, key: hub.key)
    } catch {
        unsafe exception?.pointee = martlet_js_error(context, error.description)
    }
    return nil
}

func evaluateScript(
    _ text: [UInt8], _ url: String, _ context: JSContextRef, _ exception: UnsafeMutablePointer<JSValueRef?>?
) -> JSValueRef? {
    let terminated = text + [0]
    return unsafe terminated.withUnsafeBytes { bytes in
        guard let base = unsafe bytes.assumingMemoryBound(to: CChar.self).baseAddress else { return nil }
        return unsafe martlet_js_evaluate(context, base, url, exception)
    }
}

func make(_ value: ScriptValue, _ context: JSContextRef) -> JSValueRef? {
    switch value {
    case .undefined, .script: unsafe martlet_js_undefined(context)
    case .null: unsafe martlet_js_null(context)
    case .boolean(let truth): unsafe martlet_js_boolean(context, truth)
    case .number(let number): unsafe martlet_js_number(context, number)
    case .big(let number): unsafe martlet_js_bigint(context, number)
    case .text(let utf8): unsafe makeText(utf8, context)
    case .bytes(let bytes):
        unsafe bytes.withUnsafeBytes { unsafe martlet_js_bytes(context, $0.baseAddress, $0.count) }
    }
}

func makeText(_ utf8: [UInt8], _ context: JSContextRef) -> JSValueRef? {
    if utf8.allSatisfy({ $0 != 0 && $0 < 128 }) {
        let terminated = utf8 + [0]
        return unsafe terminated.withUnsafeBytes { bytes in
            guard let base = unsafe bytes.assumingMemoryBound(to: CChar.self).baseAddress else { return nil }
            return unsafe martlet_js_text(context, base)
        }
    }
    // NULs, and bytes that are no UTF-8: what is not is replaced.
    let units = Array(String(decoding: utf8, as: UTF8.self).utf16)
    return unsafe units.withUnsafeBufferPointer { unsafe martlet_js_units(context, $0.baseAddress, $0.count) }
}

private func take(_ value: JSValueRef?, _ context: JSContextRef) -> ScriptValue {
    guard let value = unsafe value else { return .undefined }
    switch unsafe martlet_js_type(context, value) {
    case 1: return .null
    case 2: return .boolean(unsafe martlet_js_truth(context, value))
    case 3: return .number(unsafe martlet_js_to_number(context, value))
    case 4: return unsafe string(martlet_js_to_string(context, value)).map { .text($0) } ?? .undefined
    case 7: return .big(unsafe martlet_js_to_uint64(context, value))
    default: return .undefined
    }
}

/// The UTF-8 of a string that is ours to release.
private func string(_ text: JSStringRef?) -> [UInt8]? {
    guard let text = unsafe text else { return nil }
    defer { unsafe martlet_js_string_release(text) }
    let room = unsafe martlet_js_string_room(text)
    return unsafe [UInt8](unsafeUninitializedCapacity: room) { buffer, count in
        let copied = unsafe buffer.withMemoryRebound(to: CChar.self) { target in
            unsafe martlet_js_string_copy(text, target.baseAddress, room)
        }
        count = max(0, Int(copied) - 1)
    }
}

/// An exception in words: its name and message, then where it was thrown, line by line.
func describe(_ exception: JSValueRef, _ context: JSContextRef) -> String {
    func member(_ name: String) -> String? {
        guard unsafe martlet_js_type(context, exception) == 5 else { return nil }
        let value = unsafe martlet_js_get(context, exception, name)
        guard let value = unsafe value, unsafe martlet_js_type(context, value) > 1 else { return nil }
        return unsafe string(martlet_js_to_string(context, value)).map { String(decoding: $0, as: UTF8.self) }
    }
    let words = unsafe string(martlet_js_to_string(context, exception)).map { String(decoding: $0, as: UTF8.self) }
    var text = words ?? "an exception"
    let stack = (member("stack") ?? "").split(separator: "\n").filter { place in
        ![Prelude.url, "[native code]"].contains { mark in
            place.indices.contains { place[$0...].hasPrefix(mark) }
        }
    }
    let places = stack.prefix(8).map { "\n    at \($0)" }.joined()
    if places.isEmpty, let line = member("line"), let url = member("sourceURL") { text += "\n    at \(url):\(line)" }
    return text + places
}
