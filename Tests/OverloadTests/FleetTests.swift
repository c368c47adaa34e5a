// Martlet
// SPDX-License-Identifier: Apache-2.0

import Testing

#if canImport(Glibc)
    import Glibc
#endif

/// A fleet in virtual time. 60 nodes and 6 routers here; with MARTLET_FLEET_NODES=1000 as many nodes and a tenth as
/// many routers, and what each tenth of a second saw is printed.
struct FleetTests {
    static let wanted: Int? = {
        // SAFETY: the environment is not changed by tests, and the text is copied at once.
        if let text = unsafe getenv("MARTLET_FLEET_NODES") { return Int(unsafe String(cString: text)) }
        return nil
    }()
    static let nodes = wanted ?? 60

    static func configuration() -> FleetSimulation.Configuration {
        var configuration = FleetSimulation.Configuration()
        configuration.nodes = nodes
        configuration.routers = max(nodes / 10, 2)
        configuration.keys = 200 * nodes
        return configuration
    }

    static func show(_ name: String, _ fleet: FleetSimulation) {
        guard wanted != nil else { return }
        for (number, tenth) in fleet.tenths.enumerated() {
            print("fleet,\(name),\(number),\(tenth.offered),\(tenth.inTime),\(tenth.refused),\(tenth.possible)")
        }
    }

    /// Served in time of what was possible, from one tenth of a second to another.
    static func goodput(_ fleet: FleetSimulation, _ range: Range<Int>) -> Double {
        let part = fleet.tenths[range]
        return part.reduce(0) { $0 + Double($1.inTime) } / part.reduce(0) { $0 + $1.possible }
    }

    @Test(arguments: [false, true])
    func aFleetThatLosesARegionServesWhatIsLeft(limits: Bool) {
        var configuration = Self.configuration()
        configuration.lossAt = 1
        configuration.limits = limits
        var fleet = FleetSimulation(configuration, seed: 5)
        fleet.run(seconds: 4)
        Self.show(limits ? "limits" : "shedding", fleet)
        print("fleet, limits \(limits): in the second of the loss \(Self.goodput(fleet, 10..<20))")
        #expect(Self.goodput(fleet, 5..<10) > 0.9, "with a hot key: \(Self.goodput(fleet, 5..<10))")
        #expect(Self.goodput(fleet, 10..<20) > 0.9, "in its loss: \(Self.goodput(fleet, 10..<20))")
        #expect(Self.goodput(fleet, 20..<40) > 0.9, "without the region: \(Self.goodput(fleet, 20..<40))")
    }

    @Test func withoutSheddingItDoesNot() {
        var configuration = Self.configuration()
        configuration.lossAt = 1
        configuration.sheds = false
        var fleet = FleetSimulation(configuration, seed: 5)
        fleet.run(seconds: 4)
        Self.show("none", fleet)
        #expect(Self.goodput(fleet, 20..<40) < 0.8)
    }
}
