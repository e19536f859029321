import Scheduling
import Testing

@Suite struct PrefixTableTests {
    @Test func theTableIsBounded() {
        var table = PrefixTable(limit: 10)
        for id in 1...5000 as ClosedRange<UInt64> { table.record([id, id + 1, id + 2], instance: 0) }
        #expect((1...5002).count { table.longest([$0]) { _ in true } != nil } == 10)
    }

    /// What is known of the prefix 1, 2, 3 after blocks were computed and instances forgotten, and who may take it.
    @Test func theLongestKnownPrefixIsFoundInEveryState() {
        typealias Row = (
            recorded: [(prefix: [UInt64], instance: Int)], forgotten: Int?, allowed: Set<Int>, found: [Int]?
        )
        let short: (prefix: [UInt64], instance: Int) = ([1, 2], 0)
        let long: (prefix: [UInt64], instance: Int) = ([1, 2, 3, 4], 1)
        let other: (prefix: [UInt64], instance: Int) = ([7, 8], 2)
        let rows: [Row] = [
            ([], nil, [0, 1, 2], nil), ([], 0, [0, 1, 2], nil), ([other], nil, [0, 1, 2], nil),
            ([short], nil, [0, 1, 2], [0, 2]), ([short], 0, [0, 1, 2], nil), ([short], 1, [0, 1, 2], [0, 2]),
            ([short], nil, [1, 2], nil), ([short, other], 2, [0, 1, 2], [0, 2]),
            ([short, long], nil, [0, 1, 2], [1, 3]), ([short, long], nil, [0, 2], nil),
            ([long, short], nil, [0, 1, 2], [1, 3]), ([long, short], nil, [0, 2], [0, 2]),
            ([long, short], 1, [0, 1, 2], [0, 2]), ([long, short], 0, [0, 1, 2], [1, 3]),
            ([short, long], 1, [0, 1, 2], nil),
        ]
        for (number, row) in rows.enumerated() {
            var table = PrefixTable(limit: 16)
            for (prefix, instance) in row.recorded { table.record(prefix, instance: instance) }
            if let instance = row.forgotten { table.forget(instance: instance) }
            let found = table.longest([1, 2, 3], accepts: row.allowed.contains).map { [$0.instance, $0.blocks] }
            #expect(found == row.found, "row \(number)")
        }
    }
}
