import Checkpoint
import Testing

struct MemoryFitTests {
    private static let gibibyte = 1 << 30
    private static let meminfo = "MemTotal:       25165824 kB\nMemFree: 1 kB\nMemAvailable:   16777216 kB\n"

    private func group(_ limit: String, _ usage: String = "", _ statistics: String = "") -> MachineMemory.Group {
        MachineMemory.Group(limit: limit, usage: usage, statistics: statistics)
    }

    private func fit(_ weights: [Int], state: Int = 0, _ placement: WeightPlacement) -> MemoryFit {
        MemoryFit(
            weights: weights.map { $0 * Self.gibibyte }, stateBytes: state * Self.gibibyte,
            memory: MachineMemory(meminfo: Self.meminfo, groups: []), placement: placement)
    }

    @Test func whatTheMachineHasAvailableCounts() {
        let memory = MachineMemory(meminfo: Self.meminfo, groups: [])
        #expect(memory.available == 16 << 30 && memory.total == 24 << 30 && !memory.isLimited)
        #expect(MachineMemory(meminfo: "", groups: []).available == 0)
    }

    @Test func theLowestLimitOfTheGroupsCountsAsTheMachinesMemory() {
        let memory = MachineMemory(
            meminfo: Self.meminfo,
            groups: [
                group("max\n", "5"),
                group("\(8 << 30)\n", "\(3 << 30)\n", "anon 5\ninactive_file \(1 << 30)\nfile 7\n"),
                group("\(12 << 30)", "\(4 << 30)"), group("9223372036854771712"), group(""),
            ])
        #expect(memory.available == 6 << 30 && memory.total == 8 << 30 && memory.isLimited)
        #expect(MachineMemory(meminfo: Self.meminfo, groups: [group("1000", "5000")]).available == 0)
        // A limit that leaves more than the machine has available does not decide.
        let wide = MachineMemory(meminfo: Self.meminfo, groups: [group("\(20 << 30)", "0")])
        #expect(wide.available == 16 << 30 && wide.total == 20 << 30 && !wide.isLimited)
    }

    @Test func hostileTextsAreNoTrap() {
        for text in [
            "", "MemAvailable: 99999999999999999999 kB", "MemAvailable: 9223372036854775807 kB", "MemAvailable: -5 kB",
        ] {
            let memory = MachineMemory(meminfo: text, groups: [group("-1", "-1", "inactive_file -1")])
            #expect(MemoryFit(weights: [1], stateBytes: 1, memory: memory, placement: .automatic).sentence != "")
        }
    }

    @Test func weightsFitAreMappedOrDoNotFit() {
        #expect(fit([2, 4, 1], .automatic).verdict == .fits && fit([2, 4, 1], .automatic).sentence == nil)
        #expect(fit([2, 9, 1], .automatic).verdict == .maps)
        #expect(fit([2, 9, 1], .copied).verdict == .fits)
        #expect(fit([2, 9, 6], .automatic).verdict == .exceeds)
        #expect(fit([2, 9, 6], .copied).verdict == .exceeds)
        #expect(fit([2, 9, 6], .mapped).verdict == .maps)
        #expect(fit([2, 9, 1], .mapped).verdict == .fits)
    }

    @Test func sentencesNameWhatIsNeededAndWhatCanBeDone() throws {
        let exceeds = try #require(fit([200], .automatic).sentence)
        for part in ["200.0 GiB", "16.0 GiB", "does not fit", "--weights map", "ironling quantize", "--shards"] {
            #expect(exceeds.contains(part), "\(exceeds)")
        }
        #expect(try #require(fit([200], .mapped).sentence).contains("read from disk again"))
        #expect(try #require(fit([9], .automatic).sentence).contains("mapped and not copied"))
        #expect(
            try #require(fit([7], state: 10, .automatic).sentence).contains(
                "--slots or --kv-tokens, or less --state-memory"))
    }

    @Test(arguments: [
        (0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1 << 30, "1.0 GiB"), (208 << 30, "208.0 GiB"),
        (5 << 40, "5.0 TiB"),
    ])
    func bytesAreShownAsPeopleReadThem(bytes: Int, text: String) { #expect(MemoryFit.gibibytes(bytes) == text) }
}
