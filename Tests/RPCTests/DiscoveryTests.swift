import RPC
import TestSupport
import Testing

/// `Discovery` as a value: what answers of lookups change.
struct DiscoveryTests {
    private static func strict(addresses: Int = 64, misses: Int = 1) -> Discovery.Limits {
        var limits = Discovery.Limits()
        (limits.addresses, limits.misses) = (addresses, misses)
        return limits
    }

    @Test func whoIsNewJoinsAndWhoIsMissingLeavesInOrder() {
        var discovery = Discovery(limits: Self.strict())
        #expect(discovery.answered(["10.0.0.2", "10.0.0.1"]) == [.joined("10.0.0.1"), .joined("10.0.0.2")])
        #expect(discovery.answered(["10.0.0.1", "10.0.0.2"]) == [])
        #expect(discovery.answered(["10.0.0.3", "10.0.0.2"]) == [.left("10.0.0.1"), .joined("10.0.0.3")])
        #expect(discovery.addresses == ["10.0.0.2", "10.0.0.3"])
        #expect(discovery.answered([]) == [.left("10.0.0.2"), .left("10.0.0.3")])
    }

    /// A name of one address at most, of which nothing, "a", or "a" that was missing once is known: what an answer with "a",
    /// with "b", with nothing, and no answer change.
    @Test func everyStateAnswersEveryLookup() {
        let lookups: [[String]?] = [["a"], ["b"], [], nil]
        let rows: [(known: [[String]], changes: [[Discovery.Change]])] = [
            ([], [[.joined("a")], [.joined("b")], [], []]),
            ([["a"]], [[], [], [], []]),
            ([["a"], []], [[], [.left("a"), .joined("b")], [.left("a")], []]),
        ]
        for (known, changes) in rows {
            for (lookup, wanted) in zip(lookups, changes) {
                var discovery = Discovery(limits: Self.strict(addresses: 1, misses: 2))
                for answer in known { _ = discovery.answered(answer) }
                var addresses = discovery.addresses
                if let lookup {
                    #expect(discovery.answered(lookup) == wanted, "\(lookup) after \(known)")
                } else {
                    discovery.failed()
                }
                for case .left(let address) in wanted { addresses.removeAll { $0 == address } }
                for case .joined(let address) in wanted { addresses.append(address) }
                #expect(discovery.addresses == addresses, "after \(known)")
                #expect(discovery.leftOut == (known == [["a"]] && lookup == ["b"] ? 1 : 0))
            }
        }
    }

    @Test func anAddressTwiceInOneAnswerIsOneInstance() {
        var discovery = Discovery()
        #expect(discovery.answered(["10.0.0.1", "10.0.0.1"]) == [.joined("10.0.0.1")])
    }

    @Test func aFailedLookupTakesNoInstanceAway() {
        var discovery = Discovery(limits: Self.strict())
        _ = discovery.answered(["10.0.0.1"])
        for _ in 0..<100 { discovery.failed() }
        #expect(discovery.addresses == ["10.0.0.1"])
        #expect(discovery.failures == 100)
        #expect(discovery.answered(["10.0.0.1"]) == [])
    }

    @Test func oneShortAnswerTakesNoInstanceAway() {
        var discovery = Discovery(limits: Self.strict(misses: 2))
        _ = discovery.answered(["10.0.0.1", "10.0.0.2"])
        for _ in 0..<5 {
            #expect(discovery.answered(["10.0.0.1"]) == [])
            #expect(discovery.answered(["10.0.0.1", "10.0.0.2"]) == [])
        }
        #expect(discovery.answered(["10.0.0.1"]) == [])
        discovery.failed()
        #expect(discovery.answered(["10.0.0.1"]) == [.left("10.0.0.2")])
    }

    @Test func moreAddressesThanTheLimitAreLeftOutAndKnownOnesStay() {
        var discovery = Discovery(limits: Self.strict(addresses: 2))
        #expect(discovery.answered(["c", "b"]) == [.joined("b"), .joined("c")])
        #expect(discovery.answered(["a", "b", "c"]) == [])
        #expect(discovery.leftOut == 1)
        #expect(discovery.answered(["a", "c"]) == [.left("b"), .joined("a")])
        #expect(discovery.leftOut == 0)
    }

    @Test func pausesDoubleWhileLookupsFailAndAreBounded() {
        var limits = Discovery.Limits()
        (limits.pauseMicroseconds, limits.longestPauseMicroseconds) = (1000, 6000)
        var discovery = Discovery(limits: limits)
        #expect(discovery.pauseMicroseconds == 1000)
        var pauses: [UInt64] = []
        for _ in 0..<5 {
            discovery.failed()
            pauses.append(discovery.pauseMicroseconds)
        }
        #expect(pauses == [1000, 2000, 4000, 6000, 6000])
        for _ in 0..<200 { discovery.failed() }
        #expect(discovery.pauseMicroseconds == 6000)
        _ = discovery.answered([])
        #expect(discovery.pauseMicroseconds == 1000)
    }

    /// Whatever the resolver answers: joins and leaves add up to what is known, which keeps the limit.
    @Test(arguments: 1...50) func joinsAndLeavesAddUp(seed: UInt64) {
        var generator = SeededRandom(seed: seed)
        let misses = Int.random(in: 1...3, using: &generator)
        var discovery = Discovery(limits: Self.strict(addresses: 5, misses: misses))
        var known: Set<String> = []
        for _ in 0..<200 {
            if Int.random(in: 0..<4, using: &generator) == 0 {
                discovery.failed()
                continue
            }
            let answer = (0..<8).filter { _ in Bool.random(using: &generator) }.map { "10.0.0.\($0)" }
            for change in discovery.answered(answer.shuffled(using: &generator)) {
                switch change {
                case .joined(let address):
                    #expect(known.insert(address).inserted && answer.contains(address), "seed \(seed)")
                case .left(let address):
                    #expect(known.remove(address) != nil && !answer.contains(address), "seed \(seed)")
                }
            }
            #expect(discovery.addresses == known.sorted() && known.count <= 5, "seed \(seed)")
        }
    }

    @Test func namesAndAddressesAreToldApart() {
        for name in ["experts", "local", "10.0.0", "10.0.0.256", "a.b.c.d", "", "10.0.0.1.example", "1.2.3.4.5"] {
            #expect(AddressWatch.isName(name), "\(name)")
        }
        // One machine has many addresses of its own, and is one instance all the same.
        for address in ["127.0.0.1", "10.0.0.255", "0.0.0.0", "::", "::1", "[::1]", "fd00::17", "localhost"] {
            #expect(!AddressWatch.isName(address), "\(address)")
        }
    }
}
