import FusedMoE
import Testing

struct RoutingTests {
    private let problem = MoEProblem(shape: .ling1T, tokens: 16384, devices: 32)

    @Test(arguments: ["uniform", "zipf=1.1", "hotspot=4", "zipf=1000000", "hotspot=1000000", "zipf=0"])
    func everyTokenNamesDifferentExperts(text: String) throws {
        let small = MoEProblem(shape: .ling1T, tokens: 300, devices: 32)
        let table = try RoutingTable.generated(RoutingPattern(parsing: text), for: small, seed: 7)
        for token in 0..<300 {
            let row = Set(table.expertIDs[token * 8..<token * 8 + 8])
            #expect(row.count == 8 && row.allSatisfy { (0..<256).contains($0) })
        }
    }

    /// A table is the same on every machine: these values were computed once and committed.
    @Test func generatedTablesAreStable() throws {
        func hash(_ text: String) throws -> UInt64 {
            let table = try RoutingTable.generated(RoutingPattern(parsing: text), for: problem, seed: 1)
            return table.expertIDs.reduce(0xCBF2_9CE4_8422_2325) {
                ($0 ^ UInt64(UInt32(bitPattern: $1))) &* 0x100_0000_01B3
            }
        }
        let ours = try [hash("uniform"), hash("zipf=1.2"), hash("hotspot=4")]
        #expect(
            ours == [4_599_140_212_003_310_194, 12_218_646_798_070_024_197, 2_242_212_471_146_395_627], "\(ours)")
    }

    /// docs/kernels.md#rows-of-a-tile: rows per (outer tile, expert) are binomial with mean 128 and deviation 11.1.
    @Test func uniformRowsHaveThePublishedStatistics() throws {
        let table = try RoutingTable.generated(.uniform, for: problem, seed: 3)
        let counts = table.counts(problem, kernel: .v2, bt: 128)
        let sizes = counts.flatMap { tile in (0..<256).map { Double(tile.size(expert: $0)) } }
        let mean = sizes.reduce(0, +) / Double(sizes.count)
        let deviation = (sizes.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(sizes.count)).squareRoot()
        #expect(mean == 128)
        #expect(abs(deviation - 11.1) < 0.8, "\(deviation)")
        let tiles = sizes.reduce(0) { $0 + ($1 / 128).rounded(.up) }
        #expect(abs(tiles / 1024 - 1.476) < 0.05, "\(tiles / 1024)")
    }

    @Test func countsAddUp() throws {
        let odd = MoEProblem(
            shape: MoEShape(hidden: 512, intermediate: 128, experts: 16, topK: 3), tokens: 61, devices: 4)
        let table = try RoutingTable.generated(.zipf(exponent: 1.5), for: odd, seed: 5)
        let counts = table.counts(odd, kernel: .v2, bt: 8)
        var total = 0
        for tile in counts {
            for expert in 0..<16 {
                var next = 0
                for source in 0..<4 {
                    #expect(tile.start(source: source, expert: expert) == next)
                    next += tile.rows(source: source, expert: expert)
                }
                #expect(tile.size(expert: expert) == next)
                total += next
            }
        }
        #expect(total == 61 * 3)
        #expect((0..<4).map { odd.tokenCount(device: $0) } == [16, 15, 15, 15])
        #expect((0..<4).map { odd.firstToken(device: $0) } == [0, 16, 31, 46])
    }

    @Test func skewIsWhatItSays() throws {
        let table = try RoutingTable.generated(.hotspot(ratio: 2), for: problem, seed: 1)
        let counts = table.counts(problem, kernel: .v2, bt: 128)
        let local = problem.expertsPerDevice
        func received(_ device: Int) -> Int {
            counts.reduce(0) { sum, tile in
                sum + (0..<local).reduce(0) { $0 + tile.size(expert: device * local + $1) }
            }
        }
        let others = (1..<32).reduce(0) { $0 + received($1) } / 31
        let ratio = Double(received(0)) / Double(others)
        #expect(abs(ratio - 2) < 0.1, "\(ratio)")
    }

    @Test(arguments: [
        "", "zipf", "zipf=nan", "zipf=-1", "zipf=inf", "zipf=1e300", "hotspot=0.5", "hotspot=", "uniform=1", "other",
    ])
    func refusesHostilePatterns(text: String) {
        #expect(refusal { _ = try RoutingPattern(parsing: text) } != nil)
    }

    @Test func refusesHostileTables() {
        func table(_ ids: [Int32], _ weights: [Float]) -> String? {
            refusal { _ = try RoutingTable(tokens: 1, topK: 2, experts: 4, expertIDs: ids, weights: weights) }
        }
        #expect(table([0, 1], [1, 1]) == nil)
        #expect(table([0, -1], [1, 0]) == nil)
        #expect(table([0, 4], [1, 1]) != nil)
        #expect(table([0, -2], [1, 1]) != nil)
        #expect(table([2, 2], [1, 1]) != nil)
        #expect(table([0, 1], [1, .nan]) != nil)
        #expect(table([0], [1]) != nil)
    }
}
