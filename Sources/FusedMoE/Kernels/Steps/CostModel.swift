import TPU

/// What the core's work costs, from the device's parameters (docs/kernels.md#costs).
///
/// A product streams 256×256 weight tiles through the two matrix units. Each tile costs the larger of a floor (loading
/// it) and its rows' share of the measured cost per row.
struct CostModel: Sendable {
    /// Weight tiles of one matrix unit that the per-row parameters stand for: H 8192, I 2048, over two units.
    private static let referenceTiles: (first: Double, second: Double) = (256, 128)
    /// Elements the vector unit handles in a cycle: eight sublanes of 128 lanes.
    private static let lanes = 1024

    private let floor: Double
    private let firstRow: Double
    private let secondRow: Double
    private let cyclePicoseconds: Double
    private let quantizeElement: Double
    private let combineElement: Double
    /// One call of the products.
    let call: Picoseconds
    /// One iteration of a scalar loop.
    let loop: Picoseconds
    private let isFree: Bool

    init(_ parameters: DeviceParameters, problem: MoEProblem, kernel: KernelVersion, options: KernelOptions) {
        cyclePicoseconds = 1000 / parameters[.clock]
        floor = parameters[.matrixFloor] * cyclePicoseconds
        let isBlocked = problem.quantization.weights == .float8E4M3 && problem.quantization.scaleBlock == .inputs128
        let factor =
            (isBlocked ? parameters[.blockScaleFactor] : 1) * (kernel == .v1 ? parameters[.slicedFactor] : 1)
        firstRow = parameters[.firstProducts] * 1000 / Self.referenceTiles.first * factor
        secondRow = parameters[.secondProduct] * 1000 / Self.referenceTiles.second * factor
        quantizeElement = parameters[.quantizeRow] * 1000 / 8192
        combineElement = parameters[.combineRow] * 1000 / 8192
        isFree = options.ablations.contains(.matmul)
        call = isFree ? 0 : parameters.picoseconds(nanoseconds: .computeCall)
        loop = parameters.picoseconds(nanoseconds: .scalarLoop)
    }

    /// One of the first products of `rows` rows: [rows, inputs] · [inputs, outputs].
    func firstProduct(rows: Int, inputs: Int, outputs: Int) -> Picoseconds {
        product(rows, inputs, outputs, firstRow)
    }

    /// Activation and second product.
    func secondProduct(rows: Int, inputs: Int, outputs: Int) -> Picoseconds {
        product(rows, inputs, outputs, secondRow)
    }

    private func product(_ rows: Int, _ inputs: Int, _ outputs: Int, _ perRow: Double) -> Picoseconds {
        guard !isFree else { return 0 }
        let tiles = Double((inputs + 255) / 256 * ((outputs + 255) / 256)) / 2
        return Picoseconds((tiles * max(floor, perRow * Double(rows))).rounded())
    }

    /// Quantisation of rows.
    func quantize(rows: Int, hidden: Int) -> Picoseconds {
        Picoseconds((Double(rows * hidden) * quantizeElement).rounded())
    }

    /// Weighted addition of result rows.
    func combine(rows: Int, hidden: Int) -> Picoseconds {
        Picoseconds((Double(rows * hidden) * combineElement).rounded())
    }

    /// `operations` vector operations on every one of `elements`.
    func vector(elements: Int, operations: Int) -> Picoseconds {
        Picoseconds((Double((elements + Self.lanes - 1) / Self.lanes * operations) * cyclePicoseconds).rounded())
    }
}
