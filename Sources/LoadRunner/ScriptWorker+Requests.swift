// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import LoadModel
internal import Memory
internal import MemcacheProtocol
internal import Platform
internal import Reactor
internal import Routing
internal import ScriptEngine
internal import Settings

/// A script's client: which servers, which of them a key belongs to, and how patiently.
struct ScriptClient {
    var description: String
    var servers: [ServerAddress]
    /// nil with one server.
    var selector: ServerSelector?
    /// Connections of a user to a server, or of a thread's users of a scenario.
    var pool: Int
    /// Whether the users of a thread and scenario have their connections together.
    var isShared: Bool
    /// Requests under way at once on a connection at most; the rest wait for room.
    var pipeline: Int
    var timeout: UInt64
    /// How keys find their servers.
    var hash: String
    /// Its option `tls` as JSON; empty without one.
    var tls: String
}

/// What requests to several servers come to, which are one to the script.
final class ScriptFan {
    var left: Int
    var isOver = false

    init(_ count: Int) { left = count }
}

/// A request of a script that was not answered. Times on the monotonic clock.
struct ScriptRequest {
    var id: Double
    var user: Int
    /// Which of its user's iterations it belongs to.
    var epoch: UInt64
    var operation: LoadModel.Operation
    /// When it was to start: an iteration's first is as late as the iteration.
    var intended: UInt64
    /// When the script asked for it.
    var made: UInt64
    var sent: UInt64 = 0
    /// What values may come: the hash of the key, or of each of several.
    var keyHash: UInt64 = 0
    var more: [UInt64] = []
    var fan: ScriptFan?
    var wantsBytes = false
    /// Whether its iteration is over: nobody is told of it, and it counts no more.
    var isAbandoned = false
    var values = 0
    /// Where its value is in ``ScriptWorker/answers``, until all of these are told.
    var value: Range<Int>?
    /// A value that came in an earlier read than the rest of the answer.
    var kept: [UInt8]?
    var cas: UInt64 = 0
}

/// A connection of a script's user, or of all users of a scenario and thread.
final class ScriptConnection {
    /// Whose places its bytes are counted in: the user that asked for it first.
    let user: Int
    let client: Int
    let server: Int
    let place: Int
    var stream: OutboundStream?
    var isOpen = false
    var output = OutputBuffer(capacity: 256)
    var written = 0
    var input = InputBuffer(capacity: 4096)
    var needed = 1
    var pending: [ScriptRequest] = []
    var head = 0
    /// Requests that wait for room in the pipeline, with what is sent of them, the oldest first.
    var waiting: [(request: ScriptRequest, bytes: [UInt8])] = []
    private var waitingHead = 0
    var isDirty = false
    var watchesOutput = false
    var connectBegan: UInt64 = 0

    init(user: Int, client: Int, server: Int, place: Int) {
        self.user = user
        self.client = client
        self.server = server
        self.place = place
    }

    func receive(_ minimum: Int) -> OutboundStream.Reading {
        stream?.receive(into: &input, minimum: minimum) ?? .ended
    }

    func send() -> Int? { stream?.send(output, from: written) ?? 0 }

    /// Requests that were not answered.
    var load: Int { pending.count - head + waiting.count - waitingHead }

    /// Takes what was written from `start` on out again.
    func takeBack(from start: Int) -> [UInt8] {
        let bytes = output.withSpan { [UInt8](copying: $0.extracting(start..<$0.count)) }
        output.truncate(to: start, externalCount: 0)
        return bytes
    }

    /// Lets the oldest that waits go; false when none does.
    func release() -> Bool {
        guard waitingHead < waiting.count else { return false }
        let next = waiting[waitingHead]
        waitingHead += 1
        if waitingHead == waiting.count {
            waiting.removeAll(keepingCapacity: true)
            waitingHead = 0
        } else if waitingHead >= 1024, waitingHead * 2 > waiting.count {
            waiting.removeFirst(waitingHead)
            waitingHead = 0
        }
        output.append(next.bytes.span)
        pending.append(next.request)
        return true
    }

    /// Takes out what waits of a user, or of everybody.
    func takeWaiting(of user: Int? = nil) -> [ScriptRequest] {
        let all = waiting[waitingHead...]
        waitingHead = 0
        waiting = all.filter { user != nil && $0.request.user != user }
        return all.map(\.request).filter { user == nil || $0.user == user }
    }

    func pop() -> ScriptRequest? {
        guard head < pending.count else { return nil }
        let request = pending[head]
        head += 1
        if head == pending.count {
            pending.removeAll(keepingCapacity: true)
            head = 0
        }
        return request
    }

    /// Keeps the value of a request whose answer is not all there, while `bytes` has it.
    func keepValue(of bytes: [UInt8]) {
        guard head < pending.count, let range = pending[head].value else { return }
        pending[head].kept = Array(bytes[range])
        pending[head].value = nil
    }

    func close() {
        stream = nil
        isOpen = false
        output.removeAll()
        (written, needed) = (0, 1)
        input.removeAll(keeping: 4096)
        pending = []
        head = 0
        _ = takeWaiting()
    }
}

/// Who has connections together: the users of a thread's scenario, or what runs outside of any.
struct SharedGroup: Hashable {
    var scenario: Int
    var client: Int
    var server: Int
}

extension ScriptWorker {
    static let operations: [LoadModel.Operation] = [
        .get, .gets, .set, .add, .replace, .append, .prepend, .cas, .delete, .incr, .decr, .touch, .gat, .mget, .meta,
        .version, .flush,
    ]

    /// `k6/x/memcached`'s client: (servers, connections, timeout, hash) → its number. Equal ones are one.
    func makeClient(_ arguments: borrowing ScriptArguments) throws(ScriptProblem) -> Int {
        let (names, pool) = (arguments.text(0), arguments.integer(1))
        let (timeoutText, hash, isShared) = (arguments.text(2), arguments.text(3), arguments.truth(4))
        let tlsText = arguments.text(5)
        let pipeline = arguments.number(6)
        let description = "\(names)|\(pool)|\(timeoutText)|\(hash)|\(isShared)|\(pipeline)|\(tlsText)"
        if let known = clients.firstIndex(where: { $0.description == description }) { return known }
        let servers = names.isEmpty ? setup.servers : names.split(separator: ",").map(String.init)
        guard (1...64).contains(pool) else { throw ScriptProblem("k6/x/memcached: pool is 1 to 64, not \(pool)") }
        guard let depth = Int(exactly: pipeline), (0...Self.openLimit).contains(depth) else {
            throw ScriptProblem("k6/x/memcached: pipeline is 1 to \(Self.openLimit), not \(arguments.text(6))")
        }
        guard let timeout = timeoutText.isEmpty ? 10_000_000_000 : GoDuration.parse(timeoutText), timeout > 0 else {
            throw ScriptProblem("k6/x/memcached: '\(timeoutText)' is no timeout, such as '1s'")
        }
        do throws(OptionProblem) {
            let found = try ServerAddress.find(servers, try tls(tlsText, isOwn: !names.isEmpty))
            clients.append(
                ScriptClient(
                    description: description, servers: found, selector: try Self.selector(servers, found, hash),
                    pool: pool, isShared: isShared, pipeline: depth == 0 ? .max : depth, timeout: timeout, hash: hash,
                    tls: tlsText))
        } catch {
            throw ScriptProblem("k6/x/memcached: \(error.description)")
        }
        return clients.count - 1
    }

    /// Has the clients that name no servers speak to these.
    func setServers(_ names: [String], _ common: LoadTLS?) throws(OptionProblem) {
        (setup.servers, setup.tls) = (names, common)
        for index in clients.indices {
            let own = clients[index].description.prefix { $0 != "|" }.split(separator: ",").map(String.init)
            // Those that name servers are found already, but for what the test says of TLS.
            guard own.isEmpty || (setup.tlsRules != LoadTLSRules() && !clients[index].tls.isEmpty) else { continue }
            let all = own.isEmpty ? names : own
            let found = try ServerAddress.find(all, try tls(clients[index].tls, isOwn: !own.isEmpty))
            clients[index].servers = found
            clients[index].selector = try Self.selector(all, found, clients[index].hash)
        }
    }

    /// How a client speaks TLS: as it says, or, to servers that it does not name, as the test does.
    private func tls(_ text: String, isOwn: Bool) throws(OptionProblem) -> LoadTLS? {
        guard !text.isEmpty else { return isOwn ? nil : setup.tlsRules.applied(to: setup.tls) }
        let node: SettingsNode?
        do throws(SettingsError) { node = try SettingsNode.parse(Array(text.utf8), file: "tls") } catch {
            throw OptionProblem(error.description)
        }
        guard let node else { return nil }
        return setup.tlsRules.applied(to: try OptionsReader.tls(node))
    }

    private static func selector(
        _ names: [String], _ found: [ServerAddress], _ hash: String
    ) throws(OptionProblem) -> ServerSelector? {
        let scheme: HashScheme
        switch hash {
        case "", "ketama": scheme = .ketama(.libmemcachedWeighted, .md5)
        case "twemproxy": scheme = .ketama(.twemproxy, .fnv1aLower64)
        case "modulo": scheme = .modulo(.oneAtATime)
        case "martlet": scheme = .standard
        default: throw OptionProblem("hash '\(hash)' is none of ketama, twemproxy, modulo and martlet")
        }
        guard names.count > 1 else { return nil }
        let servers = zip(names, found).map { name, server in
            let host = name.lastIndex(of: ":").map { String(name[..<$0]) } ?? name
            return Server(host: host, port: Int(server.address.port))
        }
        do throws(SelectorError) {
            return try ServerSelector(servers, scheme: scheme)
        } catch {
            throw OptionProblem(error.description)
        }
    }

    /// `(request, client, operation, key, …)`: writes a request. What is wrong with it is thrown.
    func request(_ user: Int, _ arguments: borrowing ScriptArguments) throws(ScriptProblem) {
        let (client, number) = (arguments.integer(1), arguments.integer(2))
        guard clients.indices.contains(client), Self.operations.indices.contains(number) else {
            throw ScriptProblem("k6/x/memcached: no such client or operation")
        }
        let operation = Self.operations[number]
        let key = arguments.bytes(3)
        let keys = operation == .mget ? key.split(separator: 32).map { Array($0) } : [key]
        if operation != .version, operation != .flush, !(operation == .meta && arguments.text(4) == "mn") {
            for one in keys where !(1...250).contains(one.count) || !one.allSatisfy({ $0 > 32 && $0 != 127 }) {
                throw ScriptProblem("a key is 1 to 250 bytes without spaces and control characters")
            }
        }
        var request = try begin(user, id: arguments.number(0), operation)
        request.wantsBytes = operation == .get && arguments.truth(4)
        let parts = parts(client, operation, keys)
        if parts.count > 1 { request.fan = ScriptFan(parts.count) }
        for part in parts {
            let connection = connection(user, client, part.server)
            let start = connections[connection].output.count
            try write(connection, operation, part.keys, arguments)
            let hashes = part.keys.map { stableHash($0.span) }
            request.keyHash = hashes.first ?? 0
            request.more = operation == .mget ? hashes : []
            push(request, connection, from: start)
        }
        note(user)
    }

    /// A request of a key and nothing else: see ``request(_:_:)``.
    func ask(_ ask: ScriptAsk, key: Span<UInt8>) throws(ScriptProblem) {
        let (user, client) = (ask.context, ask.client)
        guard users.indices.contains(user), clients.indices.contains(client),
            Self.operations.indices.contains(ask.operation)
        else { throw ScriptProblem("k6/x/memcached: no such client or operation") }
        let operation = Self.operations[ask.operation]
        var request = try begin(user, id: ask.id, operation)
        request.wantsBytes = ask.wantsBytes
        request.keyHash = stableHash(key)
        let server = clients[client].selector.map { $0.owner(of: key) } ?? 0
        let connection = connection(user, client, server)
        let start = connections[connection].output.count
        switch operation {
        case .delete: connections[connection].output.appendDelete(key: key)
        default:
            connections[connection].output.appendKeyLine(operation == .gets ? "gets " : "get ", key: key)
            connections[connection].output.appendLineEnd()
        }
        push(request, connection, from: start)
        note(user)
    }

    private func begin(
        _ user: Int, id: Double, _ operation: LoadModel.Operation
    ) throws(ScriptProblem) -> ScriptRequest {
        guard users[user].openRequests < Self.openLimit else {
            throw ScriptProblem("a virtual user has at most \(Self.openLimit) requests under way")
        }
        let now = Clock.monotonicNanoseconds()
        return ScriptRequest(
            id: id, user: user, epoch: users[user].epoch, operation: operation,
            intended: now - min(now, users[user].delay), made: now)
    }

    /// A request was made: the iteration's delay is taken over, and it goes on until there is an answer.
    private func note(_ user: Int) {
        users[user].delay = 0
        users[user].openRequests += 1
    }

    /// A request was written, from `start` on, and waits for its answer, or for room in the pipeline.
    private func push(_ request: ScriptRequest, _ index: Int, from start: Int) {
        let connection = connections[index]
        if pace(request, connection, from: start) { return }
        if hasRoom(connection) {
            connection.pending.append(request)
        } else {
            connection.waiting.append((request, connection.takeBack(from: start)))
        }
        if connection.stream == nil { connect(index) }
        markDirty(connection)
    }

    /// A request whose time has come goes to the connection that has the fewest now.
    func put(_ one: PacedRequest) {
        let index = connection(one.request.user, one.client, one.server)
        let connection = connections[index]
        if hasRoom(connection) {
            connection.pending.append(one.request)
            connection.output.append(one.bytes.span)
        } else {
            connection.waiting.append((one.request, one.bytes))
        }
        if connection.stream == nil { connect(index) }
        markDirty(connection)
    }

    private func hasRoom(_ connection: ScriptConnection) -> Bool {
        connection.pending.count - connection.head < clients[connection.client].pipeline
    }

    /// What was written is sent with the turn's other output.
    func markDirty(_ connection: ScriptConnection) {
        guard !connection.isDirty else { return }
        connection.isDirty = true
        dirty.append(connection.place)
    }

    /// Which servers a request goes to, with which of its keys.
    private func parts(
        _ client: Int, _ operation: LoadModel.Operation, _ keys: [[UInt8]]
    ) -> [(server: Int, keys: [[UInt8]])] {
        guard let selector = clients[client].selector else { return [(0, keys)] }
        switch operation {
        case .flush: return clients[client].servers.indices.map { ($0, keys) }
        case .mget:
            let byServer = Dictionary(grouping: keys) { selector.owner(of: $0.span) }
            return byServer.map { ($0.key, $0.value) }
        default:
            let key = keys.first ?? []
            return [(selector.owner(of: key.span), keys)]
        }
    }

    /// An argument as whole seconds; 0 for what is none.
    private static func seconds(_ arguments: borrowing ScriptArguments, _ index: Int) -> Int64 {
        let number = arguments.number(index)
        return number.magnitude <= 1e15 ? Int64(number) : 0
    }

    private func write(
        _ index: Int, _ operation: LoadModel.Operation, _ keys: [[UInt8]], _ arguments: borrowing ScriptArguments
    ) throws(ScriptProblem) {
        let connection = connections[index]
        let key = keys.first ?? []
        let expiry = Self.seconds(arguments, 5)
        switch operation {
        case .get: connection.output.appendGet("get ", key)
        case .gets: connection.output.appendGet("gets ", key)
        case .mget:
            connection.output.appendKeyLine("get ", key: key.span)
            for other in keys.dropFirst() { connection.output.appendAnotherKey(other.span) }
            connection.output.appendLineEnd()
        case .set, .add, .replace, .append, .prepend, .cas:
            let value = arguments.bytes(4)
            let verbs: [LoadModel.Operation: StoreVerb] = [
                .set: .set, .add: .add, .replace: .replace, .append: .append, .prepend: .prepend, .cas: .cas,
            ]
            let word = arguments.word(6)
            connection.output.appendStoreLine(
                verbs[operation] ?? .set, key: key.span,
                clientFlags: UInt32(truncatingIfNeeded: operation == .cas ? arguments.word(7) : word), expiry: expiry,
                length: value.count, cas: word)
            connection.output.append(value.span)
            connection.output.appendLineEnd()
        case .delete: connection.output.appendDelete(key: key.span)
        case .incr: connection.output.appendArithmetic("incr ", key: key.span, delta: arguments.word(4))
        case .decr: connection.output.appendArithmetic("decr ", key: key.span, delta: arguments.word(4))
        case .touch: connection.output.appendTouch(key: key.span, expiry: max(-1, Self.seconds(arguments, 4)))
        case .gat:
            connection.output.appendGetAndTouch("gat ", key: key.span, expiry: max(-1, Self.seconds(arguments, 4)))
        case .version: connection.output.append("version\r\n")
        case .flush: connection.output.append("flush_all\r\n")
        case .meta: try writeMeta(connection, key, arguments)
        }
    }

    private func writeMeta(
        _ connection: ScriptConnection, _ key: [UInt8], _ arguments: borrowing ScriptArguments
    ) throws(ScriptProblem) {
        let (command, flags) = (arguments.text(4), arguments.text(5))
        guard ["mg", "ms", "md", "ma", "mn"].contains(command) else {
            throw ScriptProblem("meta: '\(command)' is none of mg, ms, md, ma and mn")
        }
        guard flags.utf8.allSatisfy({ $0 >= 32 && $0 != 127 }), !flags.split(separator: " ").contains("q") else {
            throw ScriptProblem("meta: flags are words without control characters, and no q: each request is answered")
        }
        guard (command == "ms") == !arguments.isMissing(6) else {
            throw ScriptProblem("meta: a value belongs to ms and to nothing else")
        }
        if command == "mn" { return connection.output.append("mn\r\n") }
        let value = arguments.bytes(6)
        connection.output.append(string: command + " ")
        connection.output.append(key.span)
        if command == "ms" {
            connection.output.append(" ")
            connection.output.append(decimal: UInt64(value.count))
        }
        if !flags.isEmpty { connection.output.append(string: " " + flags) }
        connection.output.appendLineEnd()
        if command == "ms" {
            connection.output.append(value.span)
            connection.output.appendLineEnd()
        }
    }

    /// The user's connection to a server: of its pool, the one with the fewest requests.
    private func connection(_ user: Int, _ client: Int, _ server: Int) -> Int {
        if clients[client].isShared { return sharedConnection(user, client, server) }
        // Mostly it has only one.
        if users[user].connections.count == 1 {
            let only = users[user].connections[0]
            let connection = connections[only]
            if connection.client == client, connection.server == server,
                clients[client].pool == 1 || connection.pending.isEmpty
            {
                return only
            }
        }
        let own = users[user].connections.filter {
            connections[$0].client == client && connections[$0].server == server
        }
        if let idlest = idlest(own, pool: clients[client].pool) { return idlest }
        let made = makeConnection(user, client, server)
        users[user].connections.append(made)
        return made
    }

    private func sharedConnection(_ user: Int, _ client: Int, _ server: Int) -> Int {
        let group = SharedGroup(scenario: users[user].scenario, client: client, server: server)
        if let idlest = idlest(shared[group] ?? [], pool: clients[client].pool) { return idlest }
        let made = makeConnection(user, client, server)
        shared[group, default: []].append(made)
        return made
    }

    /// The one with the fewest requests; nil when there can be another one that has none.
    private func idlest(_ all: [Int], pool: Int) -> Int? {
        let idlest = all.min { connections[$0].load < connections[$1].load }
        guard let idlest, all.count >= pool || connections[idlest].pending.isEmpty else { return nil }
        return idlest
    }

    private func makeConnection(_ user: Int, _ client: Int, _ server: Int) -> Int {
        let place = freePlaces.popLast() ?? connections.count
        let made = ScriptConnection(user: user, client: client, server: server, place: place)
        if place == connections.count { connections.append(made) } else { connections[place] = made }
        return place
    }

    private func connect(_ index: Int) {
        let connection = connections[index]
        let server = clients[connection.client].servers[connection.server]
        connection.connectBegan = Clock.monotonicNanoseconds()
        do throws(SystemError) {
            let stream = try OutboundStream(to: server.address, tls: server.tls)
            try poller.add(stream.fd, [.input, .output], user: UInt64(index))
            connection.stream = consume stream
            connection.watchesOutput = true
        } catch {
            // Not at once: the request that asked for it is still being made.
            connection.connectBegan = 1
        }
    }
}
