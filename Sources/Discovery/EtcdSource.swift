// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Members that are keys of etcd.
struct EtcdSource {
    private let address: EtcdAddress
    private let caFile: String?

    init(_ address: EtcdAddress, caFile: String?) {
        self.address = address
        self.caFile = caFile
    }

    func run(_ reporter: MemberReporter) {
        EtcdKeys(address.endpoints, prefix: address.prefix, caFile: caFile).follow(reporter) { values in
            let (members, problems) = Etcd.members(values, prefix: address.prefix)
            reporter.found(members)
            reporter.remark(problems.first.map { "etcd: \($0)" })
        }
    }
}
