import TPU

/// One dense product of the model on one device: [rows, inputs] · [inputs, outputs].
struct DenseProduct: Sendable, Equatable {
    var inputs: Int
    var outputs: Int
    /// Bytes of a stored weight: 1 for fp8, which is widened to bf16 on the way into the matrix units.
    var weightBytes = 1
    /// bf16 passes; more than one for products that are exact to fp32.
    var passes = 1.0
}

/// What a device does in a time, as the costs of a step need it.
struct DeviceRates: Sendable {
    private let memoryBytesPerPicosecond: Double
    private let linkBytesPerPicosecond: Double
    private let dieBytesPerPicosecond: Double
    /// Least time of one compiled operation.
    let operation: Picoseconds
    private let collectiveStep: Picoseconds
    /// Work and time of the measured products, ascending.
    private let measured: [(work: Double, picoseconds: Double)]

    init(_ costs: CostParameters, _ device: DeviceParameters) {
        memoryBytesPerPicosecond = device[.memoryRate] * device[.memoryEfficiency] / 1e3
        linkBytesPerPicosecond = device[.linkRate] / 1e3
        dieBytesPerPicosecond = device[.dieLinkRate] / 1e3
        operation = Picoseconds((costs[.operation] * 1e6).rounded())
        collectiveStep = Picoseconds((costs[.collectiveStep] * 1e6).rounded())
        let sides: [(Double, CostParameters.Name)] = [
            (128, .dense128), (256, .dense256), (512, .dense512), (1024, .dense1024), (2048, .dense2048),
            (4096, .dense4096), (16384, .dense16384), (32768, .dense32768),
        ]
        measured = sides.map { side, name in
            let work = 2 * side * side * side
            return (work, work / costs[name])
        }
    }

    /// Time HBM needs for `bytes`.
    func memory(_ bytes: Double) -> Picoseconds { Picoseconds((bytes / memoryBytesPerPicosecond).rounded()) }

    /// An elementwise operation that reads and writes `bytes`.
    func elementwise(_ bytes: Double) -> Picoseconds { max(operation, memory(bytes)) }

    /// A dense product: what a product of as much work was measured to take, and no less than an operation that reads
    /// its operands and writes its result.
    func product(_ product: DenseProduct, rows: Int) -> Picoseconds {
        guard rows > 0 else { return 0 }
        let (m, k, n) = (Double(rows), Double(product.inputs), Double(product.outputs))
        let bytes = k * n * Double(product.weightBytes) + 2 * m * (k + n)
        return max(dense(work: 2 * m * k * n * product.passes), operation + memory(bytes))
    }

    /// Time of a dense bf16 product by its work, on the line through the measured points.
    func dense(work: Double) -> Picoseconds {
        guard let first = measured.first, work > first.work else { return operation }
        var low = first
        for high in measured.dropFirst() {
            if work <= high.work {
                let share = (work - low.work) / (high.work - low.work)
                return Picoseconds((low.picoseconds + share * (high.picoseconds - low.picoseconds)).rounded())
            }
            low = high
        }
        return Picoseconds((work * low.picoseconds / low.work).rounded())
    }

    /// Reduce-scatter or all-gather of `bytes` over `devices` neighbours, two on every chip: halves within a chip over the
    /// die link, then a share of every chip over the link between neighbouring chips, which both devices use.
    func collective(bytes: Double, devices: Int) -> Picoseconds {
        guard devices > 1, bytes > 0 else { return 0 }
        let chips = Double((devices + 1) / 2)
        let steps = Picoseconds(Int.bitWidth - (devices - 1).leadingZeroBitCount)
        let onDie = bytes / 2 / dieBytesPerPicosecond
        let onLinks = bytes * (chips - 1) / chips / linkBytesPerPicosecond
        return steps * collectiveStep + Picoseconds((onDie + onLinks).rounded())
    }

    /// `bytes` over `links` links at once.
    func transfer(bytes: Double, links: Int) -> Picoseconds {
        collectiveStep + Picoseconds((bytes / (linkBytesPerPicosecond * Double(max(1, links)))).rounded())
    }
}
