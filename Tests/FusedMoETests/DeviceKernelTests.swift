import FusedMoE
import Numerics
import TPU
import Testing

/// The kernels as programs on the device.
@Suite struct DeviceKernelTests {
    private func run(
        _ call: TestCall, _ kernel: KernelVersion, hasTensors: Bool = true
    ) throws -> KernelRun {
        try FusedMoE.simulate(
            kernel: kernel, problem: call.problem, tile: call.tile, options: call.options,
            topology: SliceTopology(named: "v7x-4"), routing: call.routing,
            tensors: hasTensors ? call.tensors : nil)
    }

    @Test(arguments: KernelGolden.names)
    func theDeviceReproducesThePublishedKernel(name: String) throws {
        let golden = try KernelGolden(name)
        let output = try #require(try run(golden.call, .v2).output)
        let agreement = Agreement(output, golden.output, hidden: golden.call.problem.shape.hidden)
        #expect(agreement.equal >= 0.998, "\(agreement)")
        #expect(agreement.steps <= 1, "\(agreement)")
    }

    /// The device moves rows between devices, banks and slots; none of that may change a bit.
    @Test(arguments: KernelVersion.allCases, Array(UInt64(0)..<50))
    func theDeviceComputesWhatThePlainOrderDoes(kernel: KernelVersion, seed: UInt64) throws {
        let call = try RandomCall.make(seed: seed, kernel: kernel)
        let output = try #require(try run(call, kernel).output)
        let plain = try PlainExecution.run(
            kernel: kernel, problem: call.problem, tile: call.tile, options: call.options, tensors: call.tensors,
            routing: call.routing)
        #expect(output == plain, "seed \(seed): \(call.problem) \(call.tile)")
        let error = try relativeRMS(output, call.dense())
        #expect(error <= call.tolerance, "seed \(seed): \(error) \(call.problem) \(call.tile)")
    }

    /// The fifty calls above really are the corners they are meant to be.
    @Test(arguments: KernelVersion.allCases)
    func theRandomCallsCoverTheCorners(kernel: KernelVersion) throws {
        let calls = try (UInt64(0)..<50).map { try RandomCall.make(seed: $0, kernel: kernel) }
        func has(_ condition: (TestCall) -> Bool) -> Bool { calls.contains(where: condition) }
        func rows(_ call: TestCall) -> [Int] {
            (0..<call.problem.shape.experts).map { expert in
                call.routing.expertIDs.count { $0 == Int32(expert) }
            }
        }
        #expect(has { $0.problem.tokens == 1 } && has { $0.problem.devices == 1 } && has { $0.problem.devices == 8 })
        #expect(has { rows($0).contains(0) }, "an empty expert")
        #expect(has { $0.problem.tokens > 8 && rows($0).count > 1 && rows($0).max() == $0.routing.expertIDs.count })
        #expect(has { call in rows(call).contains { $0 % call.tile.bts != 0 && $0 > call.tile.bts } })
        #expect(has { $0.problem.tokens % $0.problem.devices != 0 })
    }

    @Test(arguments: KernelVersion.allCases, Array(UInt64(100)..<110))
    func shapesTakeTheTimeOfTensors(kernel: KernelVersion, seed: UInt64) throws {
        let call = try RandomCall.make(seed: seed, kernel: kernel)
        let shapes = try run(call, kernel, hasTensors: false)
        #expect(shapes.output == nil)
        #expect(shapes.result == (try run(call, kernel).result), "seed \(seed)")
    }

    @Test(arguments: KernelVersion.allCases)
    func theSameCallTakesTheSamePicoseconds(kernel: KernelVersion) throws {
        func once() throws -> KernelRun {
            try published(kernel, tokens: 512, tile: nil)
        }
        let first = try once()
        #expect(try once().result == first.result)
        #expect(first.breakdown.total <= first.latency)
        #expect(first.breakdown.total > first.latency * 9 / 10)
    }

    /// The same picoseconds on any machine: these were computed once and committed. `make calibrate` changes them.
    @Test func publishedCallsTakeTheCommittedPicoseconds() throws {
        let ours = try [
            published(.v2, tokens: 512, tile: nil), published(.v1, tokens: 512, tile: nil),
            published(.v2, tokens: 16384, tile: nil),
        ].map(\.latency)
        #expect(ours == [222_659_357, 262_622_838, 2_550_895_341], "\(ours)")
    }

    /// Ling-2.6-1T on 32 devices.
    private func published(
        _ kernel: KernelVersion, tokens: Int, tile overrides: String?, options: KernelOptions = .init()
    ) throws -> KernelRun {
        let problem = MoEProblem(
            shape: .ling1T, tokens: tokens, devices: 32,
            quantization: kernel == .v1 ? .weightsOnly : .publishedFloat8)
        let tile = try TunedTiles.tile(
            for: problem, kernel: kernel, options: options,
            overrides: overrides.map { try TileOverrides(parsing: $0) } ?? TileOverrides())
        return try FusedMoE.simulate(
            kernel: kernel, problem: problem, tile: tile, options: options,
            topology: SliceTopology(named: "v7x-16"),
            routing: RoutingTable.generated(.uniform, for: problem, seed: 7))
    }

    /// The race detector, the semaphores and the deadlock report find nothing in the shipped kernels: shapes, tiles,
    /// switches and routings that the calls with tensors are too small for, among them several outer tiles, banks that
    /// are used again, one intermediate tile and odd numbers of them, and rows that no tile divides.
    @Test(arguments: KernelVersion.allCases, Array(UInt64(0)..<60))
    func noRaceOnRandomShapes(kernel: KernelVersion, seed: UInt64) throws {
        let call = try RandomShape.make(seed: seed, kernel: kernel)
        do {
            let run = try call.run()
            #expect(run.latency > 0, "seed \(seed)")
        } catch {
            Issue.record("seed \(seed): \(error) in \(call.problem) \(call.tile) \(call.options)")
        }
    }

    @Test func randomShapesCoverTheCorners() throws {
        let calls = try (UInt64(0)..<60).map { try RandomShape.make(seed: $0, kernel: .v2) }
        func has(_ condition: (KernelCall) -> Bool) -> Bool { calls.contains(where: condition) }
        #expect(has { $0.tile.tokenTiles($0.problem, kernel: .v2) >= 4 })
        #expect(has { $0.problem.shape.intermediate / $0.tile.bf == 1 })
        #expect(has { $0.problem.shape.intermediate / $0.tile.bf == 3 })
        #expect(has { $0.problem.devices == 1 } && has { $0.problem.devices == 32 } && has { $0.problem.tokens == 1 })
        #expect(has { $0.problem.tokens % $0.problem.devices != 0 } && has { !$0.options.ablations.isEmpty })
        #expect(has { $0.options.prequantization == .whole && $0.problem.quantization.tokens.isQuantized })
    }

    @Test func theCompactListChangesTimeButNotNumbers() throws {
        let call = try RandomCall.make(seed: 3, kernel: .v2)
        var options = call.options
        var outputs: [[Float]] = []
        for usesList in [false, true] {
            options.usesActiveList = usesList
            let run = try FusedMoE.simulate(
                kernel: .v2, problem: call.problem, tile: call.tile, options: options,
                topology: SliceTopology(named: "v7x-4"), routing: call.routing, tensors: call.tensors)
            outputs.append(try #require(run.output))
        }
        #expect(outputs[0] == outputs[1])
    }

    @Test func everyAblationRunsAndSavesTime() throws {
        let full = try published(.v2, tokens: 512, tile: nil)
        for ablation in Ablation.allCases {
            var options = KernelOptions()
            options.ablations = [ablation]
            let run = try published(.v2, tokens: 512, tile: nil, options: options)
            #expect(run.latency <= full.latency, "\(ablation)")
            let isIdle = run.result.devices.allSatisfy { $0.busy[.matrix] == 0 }
            #expect(isIdle || ablation != .matmul, "switched off, the matrix units are busy")
        }
    }

    @Test func aSliceThatIsTooSmallIsRefused() throws {
        let problem = MoEProblem(shape: .ling1T, tokens: 512, devices: 32)
        let error = #expect(throws: FusedMoEError.self) {
            try FusedMoE.simulate(
                kernel: .v2, problem: problem,
                tile: TunedTiles.tile(for: problem, kernel: .v2, options: .init()),
                topology: SliceTopology(named: "v7x-8"),
                routing: RoutingTable.generated(.uniform, for: problem, seed: 0))
        }
        #expect(error?.description.contains("16 too many") == true)
    }
}
