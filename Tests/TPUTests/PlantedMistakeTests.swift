import TPU
import Testing

/// Programs with one mistake each, and what the device says about them.
@Suite struct PlantedMistakeTests {
    /// Buffers and semaphores that the small programs share.
    struct Bench: Sendable {
        let source, target, tile, landing, constant: Buffer
        let slots: SemaphoreArray
        let sent, received: Semaphore

        init(_ slice: Slice) throws(DeviceError) {
            source = try slice.buffer("source", in: .highBandwidth, rows: 4, rowBytes: 1024)
            target = try slice.buffer("target", in: .highBandwidth, rows: 4, rowBytes: 1024)
            tile = try slice.buffer("tile", in: .vector, rows: 2, rowBytes: 1024)
            landing = try slice.buffer("landing", in: .highBandwidth, rows: 4, rowBytes: 1024)
            constant = try slice.buffer("constant", in: .highBandwidth, rows: 4, rowBytes: 1024, content: .constant)
            slots = slice.semaphores("slot", count: 2)
            sent = slice.semaphore("sent")
            received = slice.semaphore("received")
        }
    }

    /// Runs a program on two devices.
    private func run(
        _ program: @escaping @Sendable (Core, Bench) async throws(DeviceError) -> Void
    ) throws -> SimulationResult {
        let slice = try Slice(topology: SliceTopology(named: "v7x-4"), deviceCount: 2)
        let bench = try Bench(slice)
        return try slice.run { (core: Core) async throws(DeviceError) in try await program(core, bench) }
    }

    private func expect(
        _ code: DeviceError.Code, mentions words: String..., sourceLocation: SourceLocation = #_sourceLocation,
        _ program: @escaping @Sendable (Core, Bench) async throws(DeviceError) -> Void
    ) {
        let error = #expect(throws: DeviceError.self, sourceLocation: sourceLocation) { try run(program) }
        #expect(error?.code == code, sourceLocation: sourceLocation)
        for word in words {
            #expect(
                error?.description.contains(word) == true, "\(error?.description ?? "")",
                sourceLocation: sourceLocation)
        }
    }

    @Test func theProgramWithoutMistakes() throws {
        let result = try run { (core, bench) async throws(DeviceError) in
            try core.copy(bench.source.rows(0, 1), to: bench.tile.rows(0, 1), signalling: bench.slots[0])
            try core.copy(bench.source.rows(1, 1), to: bench.tile.rows(1, 1), signalling: bench.slots[1])
            try await core.wait(bench.slots[0], bytes: 1024)
            try core.read(bench.tile.rows(0, 1))
            try core.send(
                bench.source.rows(2, 1), to: bench.landing.rows(0, 1), on: 1 - core.device, sent: bench.sent,
                received: bench.received)
            try await core.wait(bench.slots[1], bytes: 1024)
            try await core.wait(bench.sent, bytes: 1024)
            try await core.wait(bench.received, bytes: 1024)
            try core.read(bench.landing.rows(0, 1))
            try await core.barrier()
            try core.send(
                bench.source.rows(2, 1), to: bench.landing.rows(0, 1), on: 1 - core.device, sent: bench.sent,
                received: bench.received)
            try await core.wait(bench.sent, bytes: 1024)
            try await core.wait(bench.received, bytes: 1024)
        }
        #expect(result.devices.count == 2)
    }

    @Test func readingBeforeTheWait() {
        expect(.race, mentions: "tile, row 0", "is read before a copy into it") { (core, bench) throws(DeviceError) in
            try core.copy(bench.source.rows(0, 1), to: bench.tile.rows(0, 1), signalling: bench.slots[0])
            try core.read(bench.tile.rows(0, 1))
        }
    }

    @Test func waitingForTheOtherSlot() {
        expect(.race, mentions: "tile, row 1") { (core, bench) async throws(DeviceError) in
            for slot in 0..<2 {
                try core.copy(bench.source.rows(slot, 1), to: bench.tile.rows(slot, 1), signalling: bench.slots[slot])
            }
            try await core.wait(bench.slots[0], bytes: 1024)
            try core.read(bench.tile.rows(1, 1))
        }
    }

    @Test func loadingIntoASlotInFlight() {
        expect(.race, mentions: "an earlier copy into it") { (core, bench) throws(DeviceError) in
            try core.copy(bench.source.rows(0, 1), to: bench.tile.rows(0, 1), signalling: bench.slots[0])
            try core.copy(bench.source.rows(1, 1), to: bench.tile.rows(0, 1), signalling: bench.slots[1])
        }
    }

    @Test func writingWhatIsBeingLoaded() {
        expect(.race, mentions: "is written before a copy into it") { (core, bench) throws(DeviceError) in
            try core.copy(bench.source.rows(0, 1), to: bench.tile.rows(0, 1), signalling: bench.slots[0])
            try core.write(bench.tile.rows(0, 1))
        }
    }

    @Test func writingWhatIsBeingStored() {
        expect(.race, mentions: "is written before a copy out of it") { (core, bench) throws(DeviceError) in
            try core.write(bench.tile.rows(0, 1))
            try core.copy(bench.tile.rows(0, 1), to: bench.target.rows(0, 1), signalling: bench.slots[0])
            try core.write(bench.tile.rows(0, 1))
        }
    }

    @Test func loadingOverWhatIsBeingStored() {
        expect(.race, mentions: "a copy out of it") { (core, bench) throws(DeviceError) in
            try core.copy(bench.tile.rows(0, 1), to: bench.target.rows(0, 1), signalling: bench.slots[0])
            try core.copy(bench.source.rows(0, 1), to: bench.tile.rows(0, 1), signalling: bench.slots[1])
        }
    }

    @Test func sendingWhatHasNotArrived() {
        expect(.race, mentions: "is copied from") { (core, bench) throws(DeviceError) in
            try core.copy(bench.source.rows(0, 1), to: bench.target.rows(0, 1), signalling: bench.slots[0])
            try core.send(
                bench.target.rows(0, 1), to: bench.landing.rows(0, 1), on: 1 - core.device, sent: bench.sent,
                received: bench.received)
        }
    }

    @Test func oneSemaphoreForTwoSlots() {
        expect(.race, mentions: "tile, row 0") { (core, bench) async throws(DeviceError) in
            for slot in 0..<2 {
                try core.copy(bench.source.rows(slot, 1), to: bench.tile.rows(slot, 1), signalling: bench.slots[0])
            }
            // The bytes may be those of the other slot.
            try await core.wait(bench.slots[0], bytes: 1024)
            try core.read(bench.tile.rows(0, 1))
        }
    }

    @Test func readingALandingZoneWithoutWaiting() {
        expect(.race, mentions: "landing, row 0") { (core, bench) async throws(DeviceError) in
            if core.device == 1 {
                try core.send(
                    bench.source.rows(0, 1), to: bench.landing.rows(0, 1), on: 0, sent: bench.sent,
                    received: bench.received)
                try await core.wait(bench.sent, bytes: 1024)
            }
            try await core.barrier()
            if core.device == 0 { try core.read(bench.landing.rows(0, 1)) }
        }
    }

    @Test func aSharedBankWithoutABarrier() {
        expect(.race, mentions: "landing, row 0", "no barrier or reply") { (core, bench) async throws(DeviceError) in
            for _ in 0..<2 {
                if core.device == 1 {
                    try core.send(
                        bench.source.rows(0, 1), to: bench.landing.rows(0, 1), on: 0, sent: bench.sent,
                        received: bench.received)
                    try await core.wait(bench.sent, bytes: 1024)
                    // Long enough for device 0 to have read it, which device 1 cannot know.
                    core.spend(1_000_000_000, .scalar)
                    try core.copy(bench.source.rows(1, 1), to: bench.tile.rows(0, 1), signalling: bench.slots[0])
                    try await core.wait(bench.slots[0], bytes: 1024)
                } else {
                    try await core.wait(bench.received, bytes: 1024)
                    try core.read(bench.landing.rows(0, 1))
                }
            }
        }
    }

    @Test func twoSendersOfOneRow() {
        expect(.race, mentions: "landing, row 0") { (core, bench) throws(DeviceError) in
            try core.copy(bench.source.rows(0, 1), to: bench.landing.rows(0, 1), signalling: bench.slots[0])
            try core.send(
                bench.source.rows(0, 1), to: bench.landing.rows(0, 1), on: 1 - core.device, sent: bench.sent,
                received: bench.received)
        }
    }

    /// A notice that a row is free, sent before the owner has stored the row.
    @Test func aNoticeThatComesTooEarly() {
        expect(.race, mentions: "landing, row 0") { (core, bench) async throws(DeviceError) in
            if core.device == 0 {
                try core.copy(bench.landing.rows(0, 1), to: bench.target.rows(0, 1), signalling: bench.slots[0])
                try core.signal(bench.slots[1], on: 1, count: 1)
                try await core.wait(bench.slots[0], bytes: 1024)
                try await core.wait(bench.received, bytes: 1024)
            } else {
                try await core.wait(bench.slots[1], bytes: 1)
                try core.send(
                    bench.source.rows(0, 1), to: bench.landing.rows(0, 1), on: 0, sent: bench.sent,
                    received: bench.received)
                try await core.wait(bench.sent, bytes: 1024)
            }
        }
    }

    /// A loop that never waits for its stores.
    @Test func copiesOutOfOneRowWithoutEnd() throws {
        let slice = try Slice(topology: SliceTopology(named: "v7x-4"), deviceCount: 1)
        let tile = try slice.buffer("tile", in: .vector, rows: 1, rowBytes: 32)
        let target = try slice.buffer("target", in: .highBandwidth, rows: 1 << 16, rowBytes: 32)
        let stored = slice.semaphore("stored")
        let error = #expect(throws: DeviceError.self) {
            try slice.run { (core: Core) throws(DeviceError) in
                for row in 0..<target.rowCount {
                    try core.copy(tile.rows(0, 1), to: target.rows(row, 1), signalling: stored)
                }
            }
        }
        #expect(error?.description.contains("65535 copies out of it") == true, "\(error?.description ?? "")")
    }

    @Test func aWaitThatIsMissingAtTheEnd() {
        expect(.semaphore, mentions: "slot[0]", "1024 bytes") { (core, bench) throws(DeviceError) in
            try core.copy(bench.source.rows(0, 1), to: bench.tile.rows(0, 1), signalling: bench.slots[0])
        }
    }

    @Test func aWaitForFewerBytes() {
        expect(.semaphore, mentions: "512 bytes") { (core, bench) async throws(DeviceError) in
            try core.copy(bench.source.rows(0, 1), to: bench.tile.rows(0, 1), signalling: bench.slots[0])
            try await core.wait(bench.slots[0], bytes: 512)
        }
    }

    @Test func writingAConstant() {
        expect(.race, mentions: "constant") { (core, bench) throws(DeviceError) in
            try core.copy(bench.source.rows(0, 1), to: bench.constant.rows(0, 1), signalling: bench.slots[0])
        }
    }

    @Test func rowsThatDoNotExist() {
        expect(.bounds, mentions: "it has 4 rows") { (core, bench) throws(DeviceError) in
            try core.read(bench.source.rows(3, 2))
        }
        expect(.bounds, mentions: "there are 2") { (core, bench) throws(DeviceError) in
            try core.send(
                bench.source.rows(0, 1), to: bench.landing.rows(0, 1), on: 2, sent: bench.sent,
                received: bench.received)
        }
    }

    @Test func aDeadlockSaysWhoWaitsForWhat() {
        expect(.deadlock, mentions: "device 0", "waits for 2048 bytes on received, which has 1024", "device 1") {
            (core, bench) async throws(DeviceError) in
            try core.send(
                bench.source.rows(0, 1), to: bench.landing.rows(0, 1), on: 1 - core.device, sent: bench.sent,
                received: bench.received)
            try await core.wait(bench.received, bytes: 2048)
        }
    }

    @Test func aBarrierThatOneDeviceMisses() {
        expect(.deadlock, mentions: "device 0", "waits at the barrier for 1 more") {
            (core, _) async throws(DeviceError) in
            if core.device == 0 { try await core.barrier() }
        }
    }

    @Test func memoriesThatDoNotHoldTheProgram() throws {
        let slice = try Slice(topology: SliceTopology(named: "v7x-4"), deviceCount: 1)
        _ = try slice.buffer("first", in: .vector, rows: 48, rowBytes: 1 << 20)
        let vector = #expect(throws: DeviceError.self) {
            try slice.buffer("second", in: .vector, rows: 17, rowBytes: 1 << 20)
        }
        #expect(vector?.code == .vectorMemory)
        #expect(vector?.description.contains("1048576 too many") == true)
        let scalar = #expect(throws: DeviceError.self) {
            try slice.buffer("table", in: .scalar, rows: 1, rowBytes: (1 << 20) + 4)
        }
        #expect(scalar?.code == .scalarMemory)
    }
}
