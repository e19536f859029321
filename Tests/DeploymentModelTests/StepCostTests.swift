import DeploymentModel
import FusedMoE
import TPU
import Testing

struct StepCostTests {
    /// Bytes per picosecond of a stream from HBM.
    private static let memory = 3690 * 0.9 / 1000
    private static let operation: Picoseconds = 1_610_000

    private func decode(_ perRank: Int, context: Int) -> StepWork {
        StepWork(ranks: 8, each: Array(repeating: .decode(context: context), count: perRank))
    }

    private func picoseconds(_ value: Double) -> Picoseconds { Picoseconds(value.rounded()) }

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

    /// Recurrent states are read and written once per layer: 4 MiB over tp 4. Keys are 1280 bytes per layer.
    @Test func decodeAttentionIsWhatItsBytesTake() throws {
        var deployment = try Deployment()
        let cost = deployment.cost(of: decode(4, context: 999))
        let states = picoseconds(Double(2 * 4 << 20) / Self.memory)
        #expect(cost[.linearDecode] == 70 * (Self.operation + states))
        let keys = picoseconds(Double(4 * 1000 * 1280) / Self.memory)
        #expect(cost[.latentDecode] == 10 * (Self.operation + keys))
    }

    /// A chunk of 64 rows and a head take four products of 64 × 128 × 128 or 64 × 64 × 128, in six passes at 2.6 TFLOP/s.
    @Test func prefillAttentionIsWhatItsProductsTake() throws {
        var deployment = try Deployment()
        let cost = deployment.cost(of: StepWork(ranks: 8, each: [.prefill(rows: 2048, context: 1000)]))
        let chunk = 2 * Double(2 * 64 * 64 * 128 + 2 * 64 * 128 * 128) * 6 / 2.6
        let states = picoseconds(Double(2 << 20) / Self.memory)
        #expect(cost[.linearPrefill] == 70 * (Self.operation + picoseconds(32 * 16 * chunk) + states))
        let pairs = Double(2048 * 1000 + 2048 * 2049 / 2)
        let products = picoseconds(2 * 16 * (640 + 512) * pairs / 350)
        #expect(cost[.latentPrefill] == 10 * (Self.operation + products))
        #expect(cost[.head] == 0)
    }

    /// With few rows a dense product reads its weights; with many it runs at the measured rate.
    @Test func projectionsFollowTheRoofs() throws {
        var deployment = try Deployment()
        let weights = 70.0 * 5 * 8192 * 8192 / 4 + 10 * 30e6
        let few = Double(deployment.cost(of: decode(1, context: 0))[.projections])
        let bound = weights / Self.memory
        #expect(few > bound && few < 1.4 * bound + 70 * 3 * Double(Self.operation))
        let many = Double(
            deployment.cost(of: StepWork(ranks: 8, each: [.prefill(rows: 2048)]))[.projections])
        let work = 2 * 2048 * weights
        #expect(many > work / 956 && many < work / 800)
    }

    @Test func moreContextAndMoreRowsNeverCostLess() throws {
        var deployment = try Deployment()
        let contexts = [0, 1000, 16_384, 131_072].map { deployment.cost(of: decode(4, context: $0)).total }
        #expect(contexts == contexts.sorted())
        let chunks = [64, 512, 2048].map { rows in
            deployment.cost(of: StepWork(ranks: 8, each: [.prefill(rows: rows)])).total
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
        uneven.ranks[7] = []
        #expect(deployment.cost(of: uneven) == deployment.cost(of: even))
    }

    @Test func hostileGroupsCostSomethingFinite() throws {
        var deployment = try Deployment()
        let group = RowGroup(rows: -5, context: -7, isPrefill: true, samples: true)
        #expect(deployment.cost(of: StepWork(ranks: 8, each: [group])).total == 0)
        #expect(deployment.cost(of: StepWork(ranks: -1, each: [.decode(context: 1)])).total == 0)
        #expect(deployment.cost(of: StepWork(ranks: 8, each: [.decode(context: .max)])).total > 0)
        #expect(RowGroup.prefill(rows: .max, context: .max).rows < 1 << 23)
    }

    @Test func microBatchesAreUsedOnlyWhereTheyAreFaster() throws {
        var layout = DeploymentLayout.disaggregated
        var many = try Deployment(layout: layout)
        layout.experts = .apart(devices: 16, microBatches: 1)
        var one = try Deployment(layout: layout)
        for work in [
            StepWork(ranks: 4, each: [.prefill(rows: 2048)]),
            StepWork(ranks: 4, each: Array(repeating: .decode(context: 1000), count: 8)),
        ] {
            let (split, whole) = (many.cost(of: work), one.cost(of: work))
            #expect(split.total <= whole.total)
            #expect(split.components.reduce(0) { $0 + $1.time } == split.total)
            #expect(whole[.exchange] > 0)
        }
    }

    @Test func oneKernelOrTheOther() throws {
        var (v1, v2) = (
            try Deployment(options: DeploymentOptions(kernel: .v1)),
            try Deployment(options: DeploymentOptions(kernel: .v2))
        )
        let work = StepWork(ranks: 8, each: [.prefill(rows: 2048)])
        let (slow, fast) = (v1.cost(of: work), v2.cost(of: work))
        #expect(slow[.experts] > 2 * fast[.experts])
        #expect(slow.total - slow[.experts] == fast.total - fast[.experts])
    }
}
