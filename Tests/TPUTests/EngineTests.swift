import Foundation
import TPU
import Testing

/// What copies, links and HBM take.
@Suite struct EngineTests {
    private func slice(_ devices: Int, _ parameters: DeviceParameters = .default) throws -> Slice {
        try Slice(
            topology: SliceTopology(named: "v7x-16"), deviceCount: devices, parameters: parameters,
            storesTensors: false)
    }

    /// 805 MB in 0.243 ms (docs/kernels.md#published-figures).
    @Test func streamingReachesTheMeasuredRate() throws {
        let slice = try slice(1)
        let pairs = 768
        let source = try slice.buffer(
            "source", in: .highBandwidth, rows: 2 * pairs, rowBytes: 1 << 19, content: .constant)
        let slots = try slice.buffer("slots", in: .vector, rows: 8, rowBytes: 1 << 19)
        let loaded = slice.semaphores("loaded", count: 4)
        let result = try slice.run { (core: Core) async throws(DeviceError) in
            for pair in 0..<pairs {
                let slot = pair % 4
                if pair >= 4 { try await core.wait(loaded[slot], bytes: 1 << 20) }
                try core.copy(source.rows(2 * pair, 2), to: slots.rows(2 * slot, 2), signalling: loaded[slot])
            }
            for slot in 0..<4 { try await core.wait(loaded[slot], bytes: 1 << 20) }
        }
        #expect(result.devices[0].memoryBytes == Int64(pairs) << 20)
        #expect(abs(Double(result.latency) / 0.243e9 - 1) < 0.03, "\(result.latency)")
    }

    /// What was sent is what was there when it was sent, over several links too, although the source was free and used
    /// again before it had arrived.
    @Test func aSourceThatIsUsedAgainDoesNotChangeWhatWasSent() throws {
        let slice = try Slice(topology: SliceTopology(named: "v7x-16"), deviceCount: 32)
        let tile = try slice.buffer("tile", in: .vector, rows: 1, rowBytes: 1 << 16)
        let landing = try slice.buffer("landing", in: .vector, rows: 1, rowBytes: 1 << 16)
        let (sent, received) = (slice.semaphore("sent"), slice.semaphore("received"))
        _ = try slice.run { (core: Core) async throws(DeviceError) in
            if core.device == 0 {
                for value in UInt8(1)...2 {
                    let bytes = try core.write(tile.rows(0, 1))
                    bytes?.initializeMemory(as: UInt8.self, repeating: value, count: 1 << 16)
                    guard value == 1 else { return }
                    try core.send(tile.rows(0, 1), to: landing.rows(0, 1), on: 31, sent: sent, received: received)
                    try await core.wait(sent, bytes: 1 << 16)
                }
            }
            if core.device == 31 { try await core.wait(received, bytes: 1 << 16) }
        }
        let arrived = try #require(slice.contents(of: landing, device: 31))
        #expect(arrived.allSatisfy { $0 == 1 })
    }

    /// Device 0 and device 2 send to device 6: their routes share the last link.
    @Test func copiesThatShareALinkTakeTurns() throws {
        func latency(senders: Set<Int>) throws -> Picoseconds {
            let slice = try slice(8)
            let rows = 64
            let source = try slice.buffer("source", in: .highBandwidth, rows: rows, rowBytes: 1 << 16)
            let landing = try slice.buffer("landing", in: .highBandwidth, rows: 8 * rows, rowBytes: 1 << 16)
            let sent = slice.semaphore("sent")
            let received = slice.semaphore("received")
            return try slice.run { (core: Core) async throws(DeviceError) in
                let bytes = rows << 16
                if senders.contains(core.device) {
                    for row in 0..<rows {
                        try core.send(
                            source.rows(row, 1), to: landing.rows(core.device * rows + row, 1), on: 6, sent: sent,
                            received: received)
                    }
                    try await core.wait(sent, bytes: bytes)
                }
                if core.device == 6 { try await core.wait(received, bytes: senders.count * bytes) }
            }.latency
        }
        let alone = try latency(senders: [2])
        let both = try latency(senders: [0, 2])
        #expect(Double(both) / Double(alone) > 1.8 && Double(both) / Double(alone) < 2.2, "\(alone) \(both)")
    }

    @Test(arguments: DeviceParameters.Arbitration.allCases)
    func copiesWithPriorityGoFirst(arbitration: DeviceParameters.Arbitration) throws {
        var parameters = DeviceParameters.default
        parameters.arbitration = arbitration
        func latency(hasPriority: Bool) throws -> Picoseconds {
            let slice = try slice(1, parameters)
            let source = try slice.buffer("source", in: .highBandwidth, rows: 2, rowBytes: 16 << 20, content: .constant)
            let tile = try slice.buffer("tile", in: .vector, rows: 2, rowBytes: 16 << 20)
            let small = try slice.buffer("small", in: .highBandwidth, rows: 8, rowBytes: 1 << 17, content: .constant)
            let staged = try slice.buffer("staged", in: .vector, rows: 8, rowBytes: 1 << 17)
            let loaded = slice.semaphores("loaded", count: 2)
            let here = slice.phase("small copy")
            let after = slice.phase("long copies")
            return try slice.run { (core: Core) async throws(DeviceError) in
                for part in 0..<2 {
                    let bytes = part * (8 << 20)..<(part + 1) * (8 << 20)
                    try core.copy(
                        source.rows(0, 2, bytes: bytes), to: tile.rows(0, 2, bytes: bytes), signalling: loaded[0])
                    core.enter(here)
                    try core.copy(
                        small.rows(0, 8), to: staged.rows(0, 8), signalling: loaded[1], hasPriority: hasPriority)
                    try await core.wait(loaded[1], bytes: 1 << 20)
                    core.enter(after)
                    try await core.wait(loaded[0], bytes: 16 << 20)
                }
            }.time(of: "small copy")
        }
        let (first, last) = try (latency(hasPriority: true), latency(hasPriority: false))
        #expect(first < last, "\(first) \(last)")
    }

    @Test func aBarrierTakesWhatItsParameterSays() throws {
        let slice = try slice(32)
        let result = try slice.run { (core: Core) async throws(DeviceError) in
            core.spend(Picoseconds(core.device) * 1000, .scalar)
            try await core.barrier()
        }
        let parameters = DeviceParameters.default
        let launch = parameters.picoseconds(microseconds: .launch) / 2 * 2
        #expect(result.latency == launch + 31_000 + parameters.barrier(devices: 32))
    }

    @Test func theTraceIsJSON() throws {
        let slice = try Slice(
            topology: SliceTopology(named: "v7x-4"), deviceCount: 2, storesTensors: false, recordsTimeline: true)
        let source = try slice.buffer("a \"source\"", in: .highBandwidth, rows: 1, rowBytes: 4096)
        let landing = try slice.buffer("landing", in: .highBandwidth, rows: 1, rowBytes: 4096)
        let (sent, received) = (slice.semaphore("sent"), slice.semaphore("received"))
        let result = try slice.run { (core: Core) async throws(DeviceError) in
            try core.send(
                source.rows(0, 1), to: landing.rows(0, 1), on: 1 - core.device, sent: sent, received: received)
            try await core.wait(sent, bytes: 4096)
            try await core.wait(received, bytes: 4096)
        }
        let trace = Data(try #require(result.timeline).chromeTrace())
        let object = try #require(try JSONSerialization.jsonObject(with: trace) as? [String: Any])
        let events = try #require(object["traceEvents"] as? [[String: Any]])
        #expect(events.contains { $0["ph"] as? String == "X" && $0["name"] as? String == "landing" })
    }
}
