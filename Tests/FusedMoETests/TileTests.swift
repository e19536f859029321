import FusedMoE
import TPU
import Testing

/// The message of the error that `body` throws; nil when it throws none.
func refusal(_ body: () throws -> Void) -> String? {
    do {
        try body()
        return nil
    } catch { return String(describing: error) }
}

struct TileTests {
    private let prefill = MoEProblem(shape: .ling1T, tokens: 16384, devices: 32)

    private func mebibytes(_ bt: Int, _ bf: Int, _ bts: Int, _ btc: Int, tokens: Int) throws -> Double {
        let problem = MoEProblem(shape: .ling1T, tokens: tokens, devices: 32)
        let options = KernelOptions(sharedExpert: .none)
        let tile = try TileConfiguration(bt: bt, bf: bf, bts: bts, btc: btc, bse: 128)
            .effective(for: problem, kernel: .v2, options: options)
        return MemoryEstimate(tile: tile, problem: problem, kernel: .v2, options: options).vectorMebibytes
    }

    /// docs/kernels.md#memory-estimate, to one decimal.
    @Test func vectorMemoryOfPublishedTiles() throws {
        let expected: [(bt: Int, bf: Int, bts: Int, btc: Int, tokens: Int, mebibytes: Double)] = [
            (128, 512, 160, 80, 16384, 47.3), (128, 512, 128, 128, 16384, 45.2), (128, 512, 256, 128, 16384, 53.7),
            (128, 512, 384, 128, 16384, 62.2), (8, 256, 8, 8, 64, 14.9), (8, 256, 16, 16, 256, 15.4),
            (16, 1024, 32, 32, 512, 54.9),
        ]
        for row in expected {
            let ours = try mebibytes(row.bt, row.bf, row.bts, row.btc, tokens: row.tokens)
            #expect((ours * 10).rounded() == (row.mebibytes * 10).rounded(), "bts \(row.bts), tokens \(row.tokens)")
        }
    }

    @Test func refusesTheTileThatTheDeviceHasNoMemoryFor() throws {
        let overrides = try TileOverrides(parsing: "bt=128,bf=512,bts=384,btc=128")
        let reason = refusal {
            _ = try TunedTiles.tile(for: prefill, kernel: .v2, options: KernelOptions(), overrides: overrides)
        }
        #expect(
            reason == "the tile needs 62.20 MiB of VMEM, the limit is 60.80 MiB (0.95 of 64): 1.40 MiB too much")
    }

    /// V2 was told to take a larger bt where the ids of its tokens alone are too many, and then not listened to.
    @Test func whatTakesLessScalarMemoryIsSaidAsItIs() throws {
        func reason(_ tokens: Int, _ kernel: KernelVersion, _ sizes: String) throws -> String? {
            let problem = MoEProblem(
                shape: .ling1T, tokens: tokens, devices: 8,
                quantization: kernel == .v1 ? .weightsOnly : .publishedFloat8)
            let overrides = try TileOverrides(parsing: sizes)
            return refusal {
                _ = try TunedTiles.tile(for: problem, kernel: kernel, options: KernelOptions(), overrides: overrides)
            }
        }
        let ids = try #require(try reason(16384, .v2, "bt=128,bf=128,bts=128"))
        #expect(ids.contains("the ids of 2048 tokens per device alone take 1024 KiB"), "\(ids)")
        let banks = try #require(try reason(8192, .v2, "bt=8,bf=128,bts=16"))
        #expect(banks.contains("a larger bt has fewer banks") || banks.contains("VMEM"), "\(banks)")
        let slices = try #require(try reason(16384, .v1, "bt=2048,bf=128,bts=128"))
        #expect(slices.contains("a smaller bt takes less") || slices.contains("VMEM"), "\(slices)")
    }

    /// A size that a kernel does not have was ignored, and a refusal named one that nobody had given.
    @Test func sizesOfTheOtherKernelAndWhatFollowsFromGivenOnesAreNamed() throws {
        func reason(_ sizes: String) -> String? {
            refusal {
                _ = try TunedTiles.tile(
                    for: prefill, kernel: .v2, options: KernelOptions(), overrides: TileOverrides(parsing: sizes))
            }
        }
        #expect(reason("bd1=512") == "bd1 is a size of v1: v2 does not slice the hidden width")
        let reason = try #require(reason("btc=3"))
        #expect(reason.contains("the sizes that were given lead to bt=128"), "\(reason)")
    }

    @Test func aTileSaysWhetherAnybodyTunedIt() throws {
        func origin(_ tokens: Int, _ sizes: String = "") throws -> TunedTiles.Origin {
            TunedTiles.origin(
                of: try KernelCall(
                    kernel: .v2, problem: MoEProblem(shape: .ling1T, tokens: tokens, devices: 32),
                    overrides: sizes.isEmpty ? .init() : TileOverrides(parsing: sizes),
                    topology: SliceTopology(named: "v7x-16")))
        }
        #expect(try origin(16384) == .tuned)
        #expect(try origin(4096) == .fallback)
        #expect(try origin(16384, "bts=256,btc=128") == .other)
    }

    /// What is switched off to see what it costs must not change anything else.
    @Test(arguments: KernelVersion.allCases, Ablation.allCases)
    func switchingAPartOffKeepsTheTile(kernel: KernelVersion, ablation: Ablation) throws {
        let problem = MoEProblem(
            shape: .ling1T, tokens: 4096, devices: 32,
            quantization: kernel == .v1 ? .weightsOnly : .publishedFloat8)
        let topology = try SliceTopology(named: "v7x-16")
        let whole = try KernelCall(kernel: kernel, problem: problem, topology: topology)
        let part = try KernelCall(
            kernel: kernel, problem: problem, options: KernelOptions(ablations: [ablation]), topology: topology)
        #expect(part.tile == whole.tile)
    }

    @Test func everyTunedTileIsLegalAndFits() throws {
        for kernel in KernelVersion.allCases {
            for shared in [SharedExpertPlacement.inKernel, .none] {
                for tokens in [32, 64, 128, 256, 512, 768, 1024, 2048, 4096, 8192, 16384, 32768] {
                    let quantization = kernel == .v1 ? Quantization.weightsOnly : .publishedFloat8
                    let problem = MoEProblem(shape: .ling1T, tokens: tokens, devices: 32, quantization: quantization)
                    let options = KernelOptions(sharedExpert: shared)
                    let tile = try TunedTiles.tile(for: problem, kernel: kernel, options: options)
                    #expect(problem.rowsPerDevice(kernel) % tile.bt == 0, "\(kernel) \(tokens) \(tile)")
                }
            }
        }
    }

    @Test func tunedTilesAreThePublishedOnes() throws {
        let shared = KernelOptions(sharedExpert: .inKernel)
        #expect(
            try TunedTiles.tile(for: prefill, kernel: .v2, options: shared).description
                == "bt=128,bf=512,bts=160,btc=80,bse=512")
        let v1 = MoEProblem(shape: .ling1T, tokens: 16384, devices: 32, quantization: .weightsOnly)
        #expect(
            try TunedTiles.tile(for: v1, kernel: .v1, options: shared).description
                == "bt=128,bf=1024,bts=128,btc=128,bse=1024,bd1=512,bd2=512")
        let untuned = MoEProblem(shape: .ling1T, tokens: 2048, devices: 32)
        #expect(
            try TunedTiles.tile(for: untuned, kernel: .v2, options: shared).description
                == "bt=32,bf=512,bts=32,btc=32,bse=256")
    }

    @Test func publishedTilesOfV1FitTheDevice() throws {
        let published = [
            64: "bt=2,bf=2048,bts=4,btc=4,bse=512,bd1=4096,bd2=4096",
            1024: "bt=32,bf=2048,bts=64,btc=16,bse=1024,bd1=2048,bd2=2048",
            4096: "bt=128,bf=1024,bts=256,btc=32,bse=512,bd1=1024,bd2=1024",
        ]
        for (tokens, tile) in published {
            let problem = MoEProblem(shape: .ling1T, tokens: tokens, devices: 32, quantization: .weightsOnly)
            #expect(try TunedTiles.tile(for: problem, kernel: .v1, options: KernelOptions()).description == tile)
        }
    }

    @Test func widerWeightsGetANarrowerTile() throws {
        let problem = MoEProblem(shape: .ling1T, tokens: 16384, devices: 32, quantization: .bfloat16)
        let tile = try TunedTiles.tile(for: problem, kernel: .v2, options: KernelOptions())
        #expect(tile.bf < 512, "\(tile)")
    }

    @Test(arguments: KernelVersion.allCases)
    func tuningNeverEndsSlowerThanItBegan(kernel: KernelVersion) throws {
        let call = try KernelCall(
            kernel: kernel,
            problem: MoEProblem(
                shape: .ling1T, tokens: 128, devices: 32, quantization: kernel == .v1 ? .weightsOnly : .publishedFloat8),
            topology: SliceTopology(named: "v7x-16"))
        let outcome = try TileTuner(call: call, budget: 40).run()
        #expect(outcome.start.tile == call.tile)
        #expect(outcome.best.milliseconds <= outcome.start.milliseconds)
        #expect(outcome.candidates.first == outcome.best && outcome.candidates.count <= 40)
        for candidate in outcome.candidates {
            let legal = try candidate.tile.effective(for: call.problem, kernel: kernel, options: call.options)
            #expect(legal == candidate.tile)
            try MemoryEstimate(tile: legal, problem: call.problem, kernel: kernel, options: call.options).check()
        }
    }

    /// A poor tile is left behind: the search comes close to what the publishers found on the machine.
    @Test func tuningFindsItsWayFromAPoorTile() throws {
        func call(_ sizes: String) throws -> KernelCall {
            try KernelCall(
                kernel: .v2, problem: MoEProblem(shape: .ling1T, tokens: 512, devices: 32),
                overrides: TileOverrides(parsing: sizes), topology: SliceTopology(named: "v7x-16"))
        }
        let published = try TileTuner(call: call("bt=16"), budget: 1).run().start
        let outcome = try TileTuner(call: call("bt=8,bf=128,bts=64,btc=8,bse=128")).run()
        #expect(outcome.start.milliseconds > 1.2 * published.milliseconds)
        #expect(outcome.best.milliseconds <= published.milliseconds)
    }

    @Test func effectiveTileFollowsTheRules() throws {
        let problem = MoEProblem(shape: .ling1T, tokens: 768, devices: 32)
        let options = KernelOptions(sharedExpert: .none)
        let tile = try TileConfiguration(bt: 32, bf: 512, bts: 0, btc: 32, bse: 256)
            .effective(for: problem, kernel: .v2, options: options)
        #expect(tile.bt == 24 && tile.bts == 24 && tile.btc == 24)
        let alone = MoEProblem(shape: .ling1T, tokens: 8, devices: 1)
        let one = try TileConfiguration(bt: 128, bf: 512, bts: 160, btc: 80, bse: 512)
            .effective(for: alone, kernel: .v2, options: options)
        #expect(one.bt == 8 && one.bts == 8 && one.btc == 8)
    }

    @Test(arguments: [
        ("bts=100,btc=80", "bts is 100, it must be a multiple of 80"), ("btc=12,bts=120", "btc is 12"),
        ("bf=500", "bf is 500, it must be a multiple of 128"), ("bf=768", "the intermediate width is 2048"),
        ("bf=256,bse=512", "bse is 512, it must be at most 256"), ("bts=64,btc=64", "bt is 128, it must be at most 64"),
    ])
    func refusesIllegalTiles(text: String, reason: String) throws {
        let overrides = try TileOverrides(parsing: text)
        let message = refusal {
            _ = try TunedTiles.tile(
                for: prefill, kernel: .v2, options: KernelOptions(sharedExpert: .inKernel), overrides: overrides)
        }
        #expect(message?.contains(reason) == true, "\(message ?? "accepted")")
    }

    @Test(arguments: ["", "bt", "bt=", "bt=0", "bt=-8", "bt=99999999999999999999", "bt=8,bt=8", "bx=8", "bt=8,,bf=128"])
    func refusesHostileTileText(text: String) {
        #expect(refusal { _ = try TileOverrides(parsing: text) } != nil)
    }

    @Test func refusesHostileProblems() {
        let shape = MoEShape.ling1T
        let problems = [
            MoEProblem(shape: shape, tokens: 0, devices: 32), MoEProblem(shape: shape, tokens: -1, devices: 32),
            MoEProblem(shape: shape, tokens: Int.max, devices: 32), MoEProblem(shape: shape, tokens: 8, devices: 0),
            MoEProblem(shape: shape, tokens: 8, devices: 3),
            MoEProblem(shape: MoEShape(hidden: 100, intermediate: 128, experts: 8, topK: 2), tokens: 8, devices: 1),
            MoEProblem(shape: MoEShape(hidden: 512, intermediate: 128, experts: 8, topK: 9), tokens: 8, devices: 1),
            MoEProblem(shape: MoEShape(hidden: 512, intermediate: .max, experts: 8, topK: 2), tokens: 8, devices: 1),
        ]
        for problem in problems { #expect(refusal { _ = try problem.validated() } != nil, "\(problem)") }
    }
}
