import Numerics
import TPU

/// The constant inputs of a call as they lie in a device's HBM: tokens, routing rows and weights.
struct KernelInputs {
    /// The device's rows, padding included, as the kernel reads them: bf16, or fp32 when nothing is quantised.
    let tokens: Buffer
    /// Ids and weights of every outer tile.
    let routing: Buffer
    /// The device's routed experts.
    let experts: [ExpertBuffers]
    /// The shared expert.
    let shared: ExpertBuffers?

    /// One expert's matrices with their scales.
    struct ExpertBuffers {
        let gate, up, down: MatrixBuffers
    }

    /// A stored matrix [rows, columns].
    struct MatrixBuffers {
        let elements: Buffer
        let scales: Buffer?
    }

    /// Bytes of one value of a token before quantisation.
    static func elementBytes(_ problem: MoEProblem) -> Int { problem.quantization.tokens == .float32 ? 4 : 2 }

    init(
        _ slice: Slice, problem: MoEProblem, kernel: KernelVersion, tile: TileConfiguration, options: KernelOptions
    ) throws(DeviceError) {
        let shape = problem.shape
        let rows = problem.rowsPerDevice(kernel)
        tokens = try slice.buffer(
            "tokens", in: .highBandwidth, rows: rows, rowBytes: shape.hidden * Self.elementBytes(problem),
            content: .constant)
        routing = try slice.buffer(
            "routing table", in: .highBandwidth, rows: rows / tile.bt, rowBytes: tile.bt * 128 * 8, content: .constant)
        var experts: [ExpertBuffers] = []
        for index in 0..<problem.expertsPerDevice {
            experts.append(try Self.expert(slice, problem, "expert \(index)", shape.intermediate))
        }
        self.experts = experts
        shared =
            options.computesShared(shape)
            ? try Self.expert(slice, problem, "shared expert", shape.sharedIntermediate) : nil
    }

    private static func expert(
        _ slice: Slice, _ problem: MoEProblem, _ name: String, _ width: Int
    ) throws(DeviceError) -> ExpertBuffers {
        let hidden = problem.shape.hidden
        return ExpertBuffers(
            gate: try matrix(slice, problem, "W1 of \(name)", rows: width, columns: hidden),
            up: try matrix(slice, problem, "W3 of \(name)", rows: width, columns: hidden),
            down: try matrix(slice, problem, "W2 of \(name)", rows: hidden, columns: width))
    }

    private static func matrix(
        _ slice: Slice, _ problem: MoEProblem, _ name: String, rows: Int, columns: Int
    ) throws(DeviceError) -> MatrixBuffers {
        let quantization = problem.quantization
        let elements = try slice.buffer(
            name, in: .highBandwidth, rows: rows, rowBytes: columns * quantization.weights.byteCount, content: .constant
        )
        guard quantization.weights == .float8E4M3 else { return MatrixBuffers(elements: elements, scales: nil) }
        let scales = try slice.buffer(
            "scales of \(name)", in: .highBandwidth, rows: rows,
            rowBytes: 4 * quantization.scaleBlock.groups(inputs: columns), content: .constant)
        return MatrixBuffers(elements: elements, scales: scales)
    }

    /// Makes the buffers be the caller's tensors. The rows are encoded into `storage`, which must outlive the run.
    func bind(
        _ tensors: MoETensors, to slice: Slice, problem: MoEProblem, kernel: KernelVersion, storage: TokenStorage
    ) {
        for device in 0..<problem.devices {
            slice.bind(tokens, device: device, to: storage.rows(device: device))
            for (index, expert) in experts.enumerated() {
                Self.bind(tensors.experts[device * problem.expertsPerDevice + index], to: expert, slice, device)
            }
            if let shared, let matrices = tensors.shared { Self.bind(matrices, to: shared, slice, device) }
        }
    }

    private static func bind(_ matrices: ExpertMatrices, to buffers: ExpertBuffers, _ slice: Slice, _ device: Int) {
        for (matrix, target) in [
            (matrices.gate, buffers.gate), (matrices.up, buffers.up), (matrices.down, buffers.down),
        ] {
            slice.bind(target.elements, device: device, to: matrix.elements)
            if let scales = target.scales, let values = matrix.scales { slice.bind(scales, device: device, to: values) }
        }
    }
}

/// Every device's token rows, padded, in the element type the kernels read.
final class TokenStorage {
    private let bytes: UnsafeMutableRawPointer
    private let deviceBytes: Int

    init(_ tensors: MoETensors, problem: MoEProblem, kernel: KernelVersion) {
        let hidden = problem.shape.hidden
        let format: TokenFormat = problem.quantization.tokens == .float32 ? .float32 : .bfloat16
        let codec = RowCodec(format: format, hidden: hidden)
        let rowBytes = format.rowBytes(hidden: hidden)
        deviceBytes = problem.rowsPerDevice(kernel) * rowBytes
        let count = max(1, deviceBytes * problem.devices)
        bytes = .allocate(byteCount: count, alignment: 64)
        bytes.initializeMemory(as: UInt8.self, repeating: 0, count: count)
        for device in 0..<problem.devices {
            for row in 0..<problem.tokenCount(device: device) {
                codec.encode(
                    tensors.tokens + (problem.firstToken(device: device) + row) * hidden,
                    into: bytes + device * deviceBytes + row * rowBytes)
            }
        }
    }

    deinit { bytes.deallocate() }

    func rows(device: Int) -> UnsafeRawPointer { UnsafeRawPointer(bytes + device * deviceBytes) }
}
