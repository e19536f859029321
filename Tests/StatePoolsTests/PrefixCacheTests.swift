import StatePools
import TestSupport
import Testing

@Suite struct PrefixCacheTests {
    /// Against the list of all that is kept, searched from end to end.
    @Test(arguments: 1...50 as ClosedRange<UInt64>)
    func aMatchIsTheLongestThatIsKept(seed: UInt64) throws {
        var random = SeededRandom(seed: seed)
        var pools = StatePools(slotCount: 40, pageCount: 200)
        var cache = PrefixCache()
        var kept: [(salt: String, tokens: [UInt32], reservation: Reservation)] = []
        for step in 0..<600 {
            let base = kept.randomElement(using: &random)?.tokens ?? []
            let tokens =
                base.prefix(Int.random(in: 0...base.count, using: &random))
                + (0..<Int.random(in: 1...6, using: &random)).map { _ in UInt32.random(in: 0..<3, using: &random) }
            let salt = Bool.random(using: &random) ? "a" : "b"
            let limit = Int.random(in: 0...tokens.count, using: &random)
            let match = cache.match(Array(tokens), limit: limit, salt: salt)
            let same = kept.filter { $0.salt == salt }
            let longest = same.filter { $0.tokens.count <= limit && tokens.starts(with: $0.tokens) }.map(\.tokens.count)
                .max()
            let common = same.map { zip($0.tokens, tokens.prefix(limit)).prefix { $0 == $1 }.count }.max() ?? 0
            #expect(match.tokens == longest ?? 0, "seed \(seed) step \(step)")
            #expect(match.common == common, "seed \(seed) step \(step)")
            if kept.count < 30 {
                let reservation = try pools.reserve(tokens: 64, for: .prefix(UInt64(step)))
                let isNew = !same.contains { $0.tokens == Array(tokens) }
                let isInserted = cache.insert(Array(tokens), salt: salt, reservation)
                #expect(isInserted == isNew, "seed \(seed) step \(step)")
                if isNew { kept.append((salt, Array(tokens), reservation)) } else { _ = pools.release(reservation) }
            } else if let gone = cache.evict() {
                kept.removeAll { $0.reservation == gone }
                let outcome = pools.release(gone)
                #expect(outcome == .freed)
            }
            #expect(cache.count == kept.count)
        }
        let all = cache.removeAll()
        #expect(all.count == kept.count && cache.count == 0)
    }

    @Test func theShallowSnapshotThatForksNeedOutlivesTheirEnds() throws {
        var (pools, cache) = (StatePools(slotCount: 10, pageCount: 10), PrefixCache())
        let shared = Array(repeating: UInt32(1), count: 100)
        try insert(shared, &cache, &pools)
        for end in 2..<20 as Range<UInt32> {
            cache.match(shared + [end], limit: 101).snapshot.map { cache.use($0) }
            try insert(shared + Array(repeating: end, count: 120), &cache, &pools)
            if cache.count > 3, let gone = cache.evict() { _ = pools.release(gone) }
        }
        #expect(cache.match(shared + [9], limit: 101).tokens == 100)
    }

    @Test func whatIsPassedOnTheWayToAnotherIsNotRefreshed() throws {
        var (pools, cache) = (StatePools(slotCount: 10, pageCount: 10), PrefixCache())
        let long = (0..<200).map { UInt32($0) }
        try insert(Array(long[..<100]), &cache, &pools)
        try insert(long, &cache, &pools)
        try insert(Array(repeating: 7, count: 10), &cache, &pools)
        let short = cache.evict()
        #expect(short != nil, "the short one goes, and what comes or is used from now on is younger")
        let match = cache.match(long + [1], limit: 201)
        match.snapshot.map { cache.use($0) }
        let passed = cache.evict()
        #expect(match.tokens == 200 && passed != nil)
        #expect(cache.match(long + [1], limit: 201).tokens == 200 && cache.match(long, limit: 150).tokens == 0)
    }

    @Test func aSplitBranchKeepsTheStateAboveIt() throws {
        var (pools, cache) = (StatePools(slotCount: 10, pageCount: 10), PrefixCache())
        let long = (0..<200).map { UInt32($0) }
        try insert(long, &cache, &pools)
        try insert(Array(long[..<64]), &cache, &pools)
        #expect(cache.match(long + [1], limit: 201).tokens == 200, "the longer one is found below the new one")
        #expect(cache.match(Array(long[..<100]), limit: 100).tokens == 64)
        #expect(cache.match(Array(long[..<100]), limit: 100).common == 100)
    }

    private func insert(_ tokens: [UInt32], _ cache: inout PrefixCache, _ pools: inout StatePools) throws {
        let reservation = try pools.reserve(tokens: 64, for: .prefix(UInt64(cache.count)))
        let isNew = cache.insert(tokens, reservation)
        #expect(isNew)
    }
}
