import DeploymentModel
import FusedMoE
import TPU
import Testing

struct StepCostTests {
    private func decode(_ perRank: Int, context: Int) -> StepWork {
        StepWork(ranks: 8, each: Array(repeating: .decode(context: context), count: perRank))
    }

    @Test func componentsAddUpAndAskingTwiceGivesTheSame() throws {
        var one = try Deployment()
        var other = try Deployment()
        let work = StepWork(
            ranks: (0..<8).map { rank in
                [.decode(context: 100 * rank), .prefill(rows: 128, context: 64 * rank, samples: true)]
            })
        let cost = one.cost(of: work)
        #expect(cost.components.reduce(0) { $0 + $1.time } == cost.total)
        #expect(cost.total > 0)
        other.prepare(rowsPerRank: 4)
        #expect(other.cost(of: work) == cost)
        #expect(one.cost(of: work) == cost)
        #expect(one.cost(of: StepWork(ranks: [])).total == 0)
    }

    @Test func moreContextAndMoreRowsNeverCostLess() throws {
        var deployment = try Deployment()
        let contexts = [0, 1000, 16_384, 131_072].map { deployment.cost(of: decode(4, context: $0)).total }
        #expect(contexts == contexts.sorted())
        let chunks = [64, 512, 2048].map { rows in
            deployment.cost(of: StepWork(ranks: 8, each: [.prefill(rows: rows)]))[.linearPrefill]
        }
        #expect(chunks == chunks.sorted() && chunks[0] < chunks[2])
    }

    /// The exchange of every MoE layer holds all ranks together.
    @Test func aStepTakesAsLongAsItsSlowestRank() throws {
        var deployment = try Deployment()
        let even = StepWork(ranks: 8, each: [.decode(context: 65_536)])
        var uneven = even
        for rank in 1..<8 { uneven.ranks[rank] = [.decode(context: 16)] }
        #expect(deployment.cost(of: uneven) == deployment.cost(of: even))
    }
}
