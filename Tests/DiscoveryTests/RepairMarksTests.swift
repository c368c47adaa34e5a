// Martlet
// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import Discovery

@Suite struct RepairMarksTests {
    @Test func marksStandBesideTheMembers() throws {
        guard case .etcd(let address) = try MemberSource(["etcd://127.0.0.1:2379/martlet/main"]) else {
            return #expect(Bool(false), "an address in etcd")
        }
        let prefix = RepairMarks.prefix(of: address)
        #expect(prefix == "/martlet/main.repairing/" && !prefix.hasPrefix(address.prefix))
    }

    @Test func tellsOurMarksFromOthers() {
        let keys = [
            "/m.repairing/10.0.0.1:1/aa", "/m.repairing/10.0.0.2:1/bb", "/m.repairing/10.0.0.1:1/bb",
            "/m.repairing//run/one.sock/bb", "/m.repairing/nobody", "/m/10.0.0.3:1/bb", "/m.repairing/",
        ]
        let (others, own) = RepairMarks.servers(keys, prefix: "/m.repairing/", owner: "aa")
        #expect(others == ["10.0.0.2:1", "10.0.0.1:1", "/run/one.sock"])
        #expect(own == ["10.0.0.1:1"])
    }
}
