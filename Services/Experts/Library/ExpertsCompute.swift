import EventLoop
import HybridModel
import Numerics
import Observability
import RPC
import WireProtocol

/// Runs the experts on a loop of its own, one call at a time.
actor ExpertsCompute: ExpertsComputation {
    private nonisolated let loop: any Loop
    private let model: ExpertsModel
    private let pairs: AlignedBuffer
    private let shared: AlignedBuffer
    private let device: (any CallDevice)?
    private var pairsPerExpert: [Int]
    private var kernelTime = Stopwatch()

    nonisolated var unownedExecutor: UnownedSerialExecutor { loop.asUnownedSerialExecutor() }

    init(loop: any Loop, model: sending ExpertsModel, device: (any CallDevice)?) {
        self.loop = loop
        self.model = model
        self.device = device
        pairsPerExpert = Array(repeating: 0, count: model.experts.count)
        let c = model.configuration
        pairs = AlignedBuffer(count: 4 * model.maximumRows * c.expertsPerToken * c.hiddenSize)
        shared = AlignedBuffer(count: 4 * model.maximumRows * c.hiddenSize)
    }

    /// Bytes of the outputs that are combined here.
    static func scratchByteCount(_ model: ExpertsModel) -> Int {
        4 * model.maximumRows * model.configuration.hiddenSize * (model.configuration.expertsPerToken + 1)
    }

    func counters() -> [String: Int64] {
        ["kernel_nanoseconds": kernelTime.nanoseconds].merging(device?.counters ?? [:]) { $1 }
    }

    /// The reply's body, and the time the call takes on the simulated slice, 0 when that is not known yet.
    func forward(_ request: ExpertsRequest, _ body: AlignedBuffer?) throws(RPCError) -> (AlignedBuffer?, UInt64) {
        guard let body else { throw RPCError(.invalidArgument, "experts call has no body") }
        let inputs = try check(request, body)
        if let kernel = device?.kernel { return try run(kernel, request, inputs) }
        let h = Int(request.hidden)
        let reply = AlignedBuffer(count: 4 * request.replyFloats)
        let out = reply.pointer.assumingMemoryBound(to: Float.self)
        let combines = request.combinedTopK > 0
        let pairOutput = combines ? pairs.pointer.assumingMemoryBound(to: Float.self) : out
        let sharedOutput =
            combines ? shared.pointer.assumingMemoryBound(to: Float.self) : out + Int(request.pairCount) * h
        let started = Stopwatch.now
        model.forward(
            layer: Int(request.layer), rows: inputs.rows, pairRow: inputs.pairRow, pairExpert: inputs.pairExpert,
            pairCount: Int(request.pairCount), sharedRow: inputs.sharedRow, sharedCount: Int(request.sharedCount),
            pairOutput: pairOutput, sharedOutput: sharedOutput)
        if combines {
            model.combine(
                rowCount: Int(request.rowCount), topK: Int(request.combinedTopK), pairOutput: pairOutput,
                weights: inputs.pairWeight, sharedOutput: sharedOutput, into: out)
        }
        kernelTime.add(since: started)
        return (reply, simulatedTime(request, inputs))
    }

    private func simulatedTime(_ request: ExpertsRequest, _ inputs: Inputs) -> UInt64 {
        guard let device, request.rowCount > 0 else { return 0 }
        for index in pairsPerExpert.indices { pairsPerExpert[index] = 0 }
        for pair in 0..<Int(request.pairCount) {
            pairsPerExpert[Int(inputs.pairExpert[pair]) - model.experts.lowerBound] += 1
        }
        return device.picoseconds(
            rows: Int(request.rowCount), pairsPerExpert: pairsPerExpert, kernelNanoseconds: kernelTime.nanoseconds)
    }

    private func run(
        _ kernel: any CallKernel, _ request: ExpertsRequest, _ inputs: Inputs
    ) throws(RPCError) -> (AlignedBuffer, UInt64) {
        guard Int(request.combinedTopK) == model.configuration.expertsPerToken, request.rowCount > 0 else {
            throw RPCError(.invalidArgument, "experts call: the kernel's numerics answer combined calls only")
        }
        let reply = AlignedBuffer(count: 4 * request.replyFloats)
        let started = Stopwatch.now
        do {
            let time = try kernel.run(
                model, layer: Int(request.layer), rows: inputs.rows, rowCount: Int(request.rowCount),
                experts: inputs.pairExpert, weights: inputs.pairWeight,
                into: reply.pointer.assumingMemoryBound(to: Float.self))
            kernelTime.add(since: started)
            return (reply, time)
        } catch {
            throw RPCError(.invalidArgument, "experts call: \(error)")
        }
    }

    private struct Inputs {
        let rows: UnsafePointer<Float>
        let pairRow: UnsafePointer<Int32>
        let pairExpert: UnsafePointer<Int32>
        let pairWeight: UnsafePointer<Float>
        let sharedRow: UnsafePointer<Int32>
    }

    /// Everything the kernels will trust.
    private func check(_ request: ExpertsRequest, _ body: AlignedBuffer) throws(RPCError) -> Inputs {
        func refuse(_ reason: String) -> RPCError { RPCError(.invalidArgument, "experts call: \(reason)") }
        let c = model.configuration
        let (rowCount, pairCount) = (Int(request.rowCount), Int(request.pairCount))
        guard model.hasLayer(Int(request.layer)) else { throw refuse("layer \(request.layer) has no experts") }
        guard request.hidden == UInt32(c.hiddenSize) else {
            throw refuse("hidden is \(request.hidden), the model has \(c.hiddenSize)")
        }
        guard rowCount <= model.maximumRows, pairCount <= rowCount * c.expertsPerToken else {
            throw refuse("\(rowCount) rows with \(pairCount) pairs, the limit is \(model.maximumRows) rows")
        }
        let combined = Int(request.combinedTopK)
        guard combined == 0 || (combined * rowCount == pairCount && request.sharedCount == request.rowCount) else {
            throw refuse("a combined call needs top-k pairs for every row and every row shared")
        }
        let offsets = request.bodyOffsets
        guard body.count == offsets[5],
            let rows = body.elements(Float.self, at: 0, count: rowCount * c.hiddenSize),
            let pairRow = body.elements(Int32.self, at: offsets[1], count: pairCount),
            let pairExpert = body.elements(Int32.self, at: offsets[2], count: pairCount),
            let pairWeight = body.elements(Float.self, at: offsets[3], count: pairCount),
            let sharedRow = body.elements(Int32.self, at: offsets[4], count: Int(request.sharedCount))
        else { throw refuse("body has \(body.count) bytes, not \(offsets[5])") }
        for pair in 0..<pairCount {
            guard (0..<rowCount).contains(Int(pairRow[pair])), model.experts.contains(Int(pairExpert[pair])) else {
                throw refuse(
                    "pair \(pair) names row \(pairRow[pair]) and expert \(pairExpert[pair]); this shard has "
                        + "experts \(model.experts)")
            }
        }
        for row in 0..<Int(request.sharedCount) where !(0..<rowCount).contains(Int(sharedRow[row])) {
            throw refuse("shared row \(sharedRow[row]) is not among the \(rowCount) rows")
        }
        return Inputs(
            rows: rows, pairRow: pairRow, pairExpert: pairExpert, pairWeight: pairWeight, sharedRow: sharedRow)
    }
}
