// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Admin
internal import Storage

/// The store's pages on the admin port; all of them need the token.
extension Node {
    func storageRoutes() -> [AdminRoute] {
        guard let operations else { return [] }
        return [
            AdminRoute(
                "/storage/rows", "rows as a dump has them; ?prefix, after (hexadecimal) and limit", access: .guarded,
                queryNames: ["prefix", "after", "limit"]
            ) { Self.rows(operations, $0) },
            AdminRoute(
                "/storage/backup",
                "begins a backup into ?path, a directory of the node's machine; ?keep removes the oldest",
                access: .action, queryNames: ["path", "keep"]
            ) { request in
                guard let path = request.query["path"], path.hasPrefix("/") else {
                    return .failure("path: expected a directory, from / on", status: 400)
                }
                guard let keep = number(request.query["keep"], default: .max, in: 1 ... .max) else {
                    return .failure("keep: expected a number of backups, from 1", status: 400)
                }
                return Self.begun(operations.beginBackup(to: path, keep: keep == .max ? nil : keep))
            },
            AdminRoute(
                "/storage/warm", "begins to read rows into the cache; ?prefix (hexadecimal), limit and rate a second",
                access: .action, queryNames: ["prefix", "limit", "rate"]
            ) { request in
                guard let prefix = bytes(hexadecimal: request.query["prefix"] ?? ""),
                    let limit = number(request.query["limit"], default: .max, in: 1 ... .max),
                    let rate = number(request.query["rate"], default: 10_000, in: 1...10_000_000)
                else {
                    return .failure(
                        "expected prefix in hexadecimal, limit from 1, rate from 1 to 10000000", status: 400)
                }
                return Self.begun(operations.beginWarming(prefix: prefix, limit: limit, rate: rate))
            },
            AdminRoute("/storage/operation", "how the last backup or warming goes", access: .guarded) { _ in
                let status = operations.status
                let failure = status.failure.map(JSONString.quoted) ?? "null"
                return .json(
                    "{\"number\":\(status.number),\"operation\":\(JSONString.quoted(status.name)),"
                        + "\"running\":\(status.isRunning),\"done\":\(status.done),\"failure\":\(failure)}\n")
            },
        ]
    }

    private static func begun(_ beginning: StorageOperations.Beginning) -> AdminResponse {
        switch beginning {
        case .begun(let number): .json("{\"begun\":true,\"number\":\(number)}\n", status: 202)
        case .refused(let reason): .failure(reason, status: 409)
        }
    }

    private static func rows(_ operations: StorageOperations, _ request: AdminRequest) -> AdminResponse {
        guard let prefix = bytes(hexadecimal: request.query["prefix"] ?? ""),
            let after = bytes(hexadecimal: request.query["after"] ?? ""),
            let limit = number(request.query["limit"], default: 1000, in: 1...StorageOperations.pageLimit)
        else {
            return .failure(
                "expected prefix and after in hexadecimal, limit from 1 to \(StorageOperations.pageLimit)", status: 400)
        }
        do throws(StorageFailure) {
            let body = try operations.page(prefix: prefix, after: after, limit: limit)
            return AdminResponse(contentType: "application/octet-stream", body: body)
        } catch {
            return .failure(error.reason, status: 503)
        }
    }
}

/// What hexadecimal digits spell, 250 bytes at most; nil when they are not pairs of digits.
private func bytes(hexadecimal text: String) -> [UInt8]? {
    text.utf8.count <= 500 ? Hexadecimal.bytes(text) : nil
}

private func number(_ text: String?, default standard: Int, in range: ClosedRange<Int>) -> Int? {
    guard let text else { return standard }
    guard let value = Int(text), range.contains(value) else { return nil }
    return value
}
