import Numerics
import TPU

/// The fused mixture-of-experts kernels as programs on a simulated slice.
public enum FusedMoE {
    /// Runs one call of a kernel.
    ///
    /// - Parameters:
    ///   - tile: block sizes; they are brought in line with the call as the published kernels do.
    ///   - topology: the slice; the call uses its first `problem.devices` devices.
    ///   - routing: experts of every token.
    ///   - tensors: the real numbers, or nil to advance time only.
    /// - Throws: `FusedMoEError` when the call is not legal, does not fit, or the device refuses the program.
    public static func simulate(
        kernel: KernelVersion, problem: MoEProblem, tile: TileConfiguration, options: KernelOptions = .init(),
        topology: SliceTopology, parameters: DeviceParameters = .default, routing: RoutingTable,
        tensors: MoETensors? = nil, recordsTimeline: Bool = false
    ) throws(FusedMoEError) -> KernelRun {
        let problem = try problem.validated()
        let options = try options.validated(for: problem, kernel: kernel)
        let tile = try tile.effective(for: problem, kernel: kernel, options: options)
        let memory = MemoryEstimate(tile: tile, problem: problem, kernel: kernel, options: options)
        try memory.check()
        try routing.check(problem)
        try tensors?.check(problem, options: options)
        do {
            let slice = try Slice(
                topology: topology, deviceCount: problem.devices, parameters: parameters, storesTensors: tensors != nil,
                recordsTimeline: recordsTimeline)
            let call = Call(problem: problem, tile: tile, options: options, routing: routing, tensors: tensors)
            let storage = tensors.map { TokenStorage($0, problem: problem, kernel: kernel) }
            var run =
                switch kernel {
                case .v1: try runV1(slice, call, storage)
                case .v2: try runV2(slice, call, storage)
                }
            run.memory = memory
            return run
        } catch {
            throw FusedMoEError(error)
        }
    }

    /// A checked call.
    struct Call {
        let problem: MoEProblem
        let tile: TileConfiguration
        let options: KernelOptions
        let routing: RoutingTable
        let tensors: MoETensors?
    }

    private static func runV2(
        _ slice: Slice, _ call: Call, _ storage: TokenStorage?
    ) throws(DeviceError) -> KernelRun {
        let kernel = try FusedMoEV2(
            slice, problem: call.problem, tile: call.tile, options: call.options, routing: call.routing,
            computes: call.tensors != nil)
        if let tensors = call.tensors, let storage {
            kernel.layout.inputs.bind(tensors, to: slice, problem: call.problem, kernel: .v2, storage: storage)
        }
        let result = try slice.run { (core: Core) async throws(DeviceError) in try await kernel.run(core) }
        return KernelRun(
            result: result, tile: call.tile, firstProducts: kernel.firstProductTime / Int64(call.problem.devices),
            scatterStage: kernel.scatterStage.map { $0.upperBound - $0.lowerBound } ?? 0,
            output: storage.map { _ in output(kernel.layout.output, slice, call.problem) })
    }

    private static func runV1(
        _ slice: Slice, _ call: Call, _ storage: TokenStorage?
    ) throws(DeviceError) -> KernelRun {
        let kernel = try FusedMoEV1(
            slice, problem: call.problem, tile: call.tile, options: call.options, routing: call.routing,
            computes: call.tensors != nil)
        if let tensors = call.tensors, let storage {
            kernel.layout.inputs.bind(tensors, to: slice, problem: call.problem, kernel: .v1, storage: storage)
        }
        let result = try slice.run { (core: Core) async throws(DeviceError) in try await kernel.run(core) }
        return KernelRun(
            result: result, tile: call.tile, firstProducts: kernel.firstProductTime / Int64(call.problem.devices),
            output: storage.map { _ in output(kernel.layout.output, slice, call.problem) })
    }

    /// The output rows of all devices in the order of the tokens, without padding.
    private static func output(_ buffer: Buffer, _ slice: Slice, _ problem: MoEProblem) -> [Float] {
        let hidden = problem.shape.hidden
        let codec = RowCodec(format: problem.quantization.tokens, hidden: hidden)
        return [Float](unsafeUninitializedCapacity: problem.tokens * hidden) { values, count in
            values.initialize(repeating: 0)
            count = problem.tokens * hidden
            guard let base = values.baseAddress else { return }
            for device in 0..<problem.devices {
                guard let bytes = slice.contents(of: buffer, device: device)?.baseAddress else { continue }
                for row in 0..<problem.tokenCount(device: device) {
                    codec.decodeResult(
                        bytes + row * buffer.rowBytes,
                        into: base + (problem.firstToken(device: device) + row) * hidden)
                }
            }
        }
    }
}

extension FusedMoEError {
    /// What the device refused, in the words of a kernel's caller.
    init(_ error: DeviceError) {
        let code: Code =
            switch error.code {
            case .vectorMemory: .vectorMemory
            case .scalarMemory: .scalarMemory
            case .race: .race
            case .semaphore: .semaphore
            case .deadlock: .deadlock
            case .parameters: .parameters
            case .highBandwidthMemory, .bounds, .topology: .device
            }
        self.init(code, error.description)
    }
}
