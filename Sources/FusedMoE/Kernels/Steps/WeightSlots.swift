import Numerics
import TPU

/// Two slots of a weight tile or slice with their scales, and a semaphore for each.
struct WeightSlots {
    /// Rows of one slot.
    let rows: Int
    /// Columns of one slot: the inputs of its products.
    let columns: Int
    private let elements: Buffer
    private let scales: Buffer?
    private let loaded: SemaphoreArray
    private let quantization: Quantization
    /// True when the weights' way from HBM is switched off.
    private let isAblated: Bool

    /// - parts: copies that bring the columns of a slot, each as many of them.
    init(
        _ slice: Slice, _ name: String, rows: Int, columns: Int, parts: Int = 1, problem: MoEProblem,
        options: KernelOptions
    ) throws(DeviceError) {
        (self.rows, self.columns) = (rows, columns)
        quantization = problem.quantization
        isAblated = options.ablations.contains(.weights)
        let bytes = columns * quantization.weights.byteCount
        elements = try slice.buffer(
            name, in: .vector, rows: 2 * rows, rowBytes: bytes, granuleRows: rows, granuleBytes: bytes / parts)
        let scaleBytes = 4 * quantization.scaleBlock.groups(inputs: columns)
        scales =
            quantization.weights == .float8E4M3
            ? try slice.buffer(
                "scales of \(name)", in: .vector, rows: 2 * rows, rowBytes: scaleBytes, granuleRows: rows,
                granuleBytes: max(4, scaleBytes / parts)) : nil
        loaded = slice.semaphores("\(name) loaded", count: 2)
    }

    /// Starts the copies of a rectangle of a matrix and of its scales.
    ///
    /// - column: where in the slot its columns begin; pieces: copies the hardware needs for the elements.
    func load(
        _ matrix: KernelInputs.MatrixBuffers, rows range: Range<Int>, columns source: Range<Int>, into slot: Int,
        at column: Int = 0, pieces: Int = 1, _ core: Core
    ) throws(DeviceError) {
        guard !isAblated else { return }
        let element = quantization.weights.byteCount
        try core.copy(
            matrix.elements.rows(
                range.lowerBound, range.count, bytes: source.lowerBound * element..<source.upperBound * element),
            to: elements.rows(
                slot * rows, range.count, bytes: column * element..<(column + source.count) * element),
            signalling: loaded[slot], pieces: pieces)
        guard let stored = matrix.scales, let scales else { return }
        let isBlocked = quantization.scaleBlock == .inputs128
        // One scale for all columns comes once, with the first of them.
        guard isBlocked || column == 0 else { return }
        let groups = isBlocked ? source.lowerBound / 128..<(source.upperBound + 127) / 128 : 0..<1
        let place = isBlocked ? column / 128 : 0
        try core.copy(
            stored.rows(range.lowerBound, range.count, bytes: 4 * groups.lowerBound..<4 * groups.upperBound),
            to: scales.rows(slot * rows, range.count, bytes: 4 * place..<4 * (place + groups.count)),
            signalling: loaded[slot])
    }

    /// Waits for everything that was loaded into a slot: all of it, or its first `rows` and `columns`.
    func wait(_ slot: Int, rows: Int? = nil, columns: Int? = nil, _ core: Core) async throws(DeviceError) {
        guard !isAblated else { return }
        let inputs = columns ?? self.columns
        var rowBytes = inputs * quantization.weights.byteCount
        if scales != nil { rowBytes += 4 * quantization.scaleBlock.groups(inputs: inputs) }
        try await core.wait(loaded[slot], bytes: (rows ?? self.rows) * rowBytes)
    }

    /// Declares that the core reads the first rows of a slot, all unless said otherwise; nil when they are only a shape.
    @discardableResult
    func matrix(_ slot: Int, rows: Int? = nil, _ core: Core) throws(DeviceError) -> WeightMatrix? {
        let count = rows ?? self.rows
        let bytes = try core.read(elements.rows(slot * self.rows, count))
        let values = try scales.flatMap { buffer throws(DeviceError) in
            try core.read(buffer.rows(slot * self.rows, count))
        }
        guard let bytes else { return nil }
        return WeightMatrix(
            rows: count, columns: columns, elementType: quantization.weights, elements: bytes,
            scales: values?.assumingMemoryBound(to: Float.self))
    }
}
