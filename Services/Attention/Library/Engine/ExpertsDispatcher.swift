import Checkpoint
import EventLoop
import HybridModel
import Observability
import RPC
import WireProtocol

/// Sends each shard of the experts the rows its experts need, and combines what comes back in a fixed order.
///
/// With one shard the combination is done there by the same function, which saves K times the traffic and gives the
/// same bits. The shared expert of row r is computed by shard r mod N. Calls keep no state and every replica of a shard
/// gives the same bits, so one that was lost is sent again, to any replica, until the time is up.
final class ExpertsDispatcher {
    private let loop: any Loop
    private let shards: ExpertsShards
    private let owners: [Int]
    private let hidden: Int
    private let topK: Int
    private let pairOutput: UnsafeMutablePointer<Float>
    private let sharedOutput: UnsafeMutablePointer<Float>
    private let combined: UnsafeMutablePointer<Float>

    /// One shard's part of a layer.
    private struct Share {
        var rows: [Int] = []
        var pairs: [Int] = []
        var pairRows: [Int32] = []
        var shared: [Int] = []
        var sharedRows: [Int32] = []
    }

    init(
        loop: any Loop, shards: [ReplicaSet], configuration: ModelConfiguration, maximumRows: Int,
        timeoutMicroseconds: UInt64
    ) {
        self.loop = loop
        self.shards = ExpertsShards(sets: shards, timeoutMicroseconds: timeoutMicroseconds)
        hidden = configuration.hiddenSize
        topK = configuration.expertsPerToken
        var owners = [Int](repeating: 0, count: configuration.expertCount)
        for index in shards.indices {
            let range = ExpertShard(index: index, count: shards.count).range(expertCount: configuration.expertCount)
            for expert in range { owners[expert] = index }
        }
        self.owners = owners
        pairOutput = .allocate(capacity: maximumRows * topK * hidden)
        sharedOutput = .allocate(capacity: maximumRows * hidden)
        combined = .allocate(capacity: maximumRows * hidden)
    }

    /// Bytes an instance allocates for steps of `rows` rows.
    static func scratchByteCount(_ c: ModelConfiguration, _ rows: Int) -> Int {
        4 * rows * c.hiddenSize * (c.expertsPerToken + 2)
    }

    /// Those of the replicas of all shards.
    var counters: [String: Int64] {
        shards.sets.reduce(into: [:]) { sum, shard in sum.merge(shard.counters) { $0 + $1 } }
    }

    deinit {
        pairOutput.deallocate()
        sharedOutput.deallocate()
        combined.deallocate()
    }

    /// The experts' output [rowCount, h] of one layer; valid until the next call.
    func run(
        layer: Int, _ routed: RoutedRows, trace: TraceContext = .none
    ) async throws(RPCError) -> UnsafePointer<Float> {
        if shards.sets.count == 1 {
            let (request, body) = whole(layer, routed)
            let reply = try await shards.send(0, request, body, trace)
            guard let rows = reply.elements(Float.self, at: 0, count: routed.rowCount * hidden) else {
                throw RPCError(.internal, "experts answered with a body of the wrong size", link: .experts)
            }
            combined.update(from: rows, count: routed.rowCount * hidden)
            return UnsafePointer(combined)
        }
        let shares = split(routed)
        let answers = await withTaskGroup(of: ExpertsShards.Answer.self) { group in
            for (index, share) in shares.enumerated() where !share.rows.isEmpty {
                let (request, body) = partial(layer, routed, share)
                group.addTask(executorPreference: loop) { [shards] in await shards.answer(index, request, body, trace) }
            }
            var answers: [ExpertsShards.Answer] = []
            for await answer in group { answers.append(answer) }
            return answers
        }
        for answer in answers { try place(try answer.result.get(), shares[answer.index]) }
        ExpertsModel.combine(
            rowCount: routed.rowCount, topK: topK, hidden: hidden, pairOutput: pairOutput, weights: routed.weights,
            sharedOutput: sharedOutput, into: combined)
        return UnsafePointer(combined)
    }

    private func whole(_ layer: Int, _ routed: RoutedRows) -> (ExpertsRequest, AlignedBuffer) {
        let pairs = routed.rowCount * topK
        let request = ExpertsRequest(
            layer: UInt32(layer), rowCount: UInt32(routed.rowCount), hidden: UInt32(hidden), pairCount: UInt32(pairs),
            sharedCount: UInt32(routed.rowCount), combinedTopK: UInt32(topK))
        let (body, rows, pairRow, pairExpert, weights, shared) = makeBody(request)
        rows.update(from: routed.rows, count: routed.rowCount * hidden)
        pairExpert.update(from: routed.expertIDs, count: pairs)
        weights.update(from: routed.weights, count: pairs)
        for pair in 0..<pairs { pairRow[pair] = Int32(pair / topK) }
        for row in 0..<routed.rowCount { shared[row] = Int32(row) }
        return (request, body)
    }

    private func split(_ routed: RoutedRows) -> [Share] {
        var shares = [Share](repeating: Share(), count: shards.sets.count)
        for row in 0..<routed.rowCount {
            for k in 0..<topK {
                let pair = row * topK + k
                let owner = owners[Int(routed.expertIDs[pair])]
                if shares[owner].rows.last != row { shares[owner].rows.append(row) }
                shares[owner].pairs.append(pair)
                shares[owner].pairRows.append(Int32(shares[owner].rows.count - 1))
            }
            let owner = row % shards.sets.count
            if shares[owner].rows.last != row { shares[owner].rows.append(row) }
            shares[owner].shared.append(row)
            shares[owner].sharedRows.append(Int32(shares[owner].rows.count - 1))
        }
        return shares
    }

    private func partial(_ layer: Int, _ routed: RoutedRows, _ share: Share) -> (ExpertsRequest, AlignedBuffer) {
        let request = ExpertsRequest(
            layer: UInt32(layer), rowCount: UInt32(share.rows.count), hidden: UInt32(hidden),
            pairCount: UInt32(share.pairs.count), sharedCount: UInt32(share.shared.count), combinedTopK: 0)
        let (body, rows, pairRow, pairExpert, weights, shared) = makeBody(request)
        for (local, row) in share.rows.enumerated() {
            (rows + local * hidden).update(from: routed.rows + row * hidden, count: hidden)
        }
        for (local, pair) in share.pairs.enumerated() {
            pairRow[local] = share.pairRows[local]
            pairExpert[local] = routed.expertIDs[pair]
            weights[local] = routed.weights[pair]
        }
        for (local, row) in share.sharedRows.enumerated() { shared[local] = row }
        return (request, body)
    }

    private func place(_ reply: AlignedBuffer, _ share: Share) throws(RPCError) {
        let count = share.pairs.count + share.shared.count
        guard let rows = reply.elements(Float.self, at: 0, count: count * hidden) else {
            throw RPCError(.internal, "experts answered with a body of the wrong size", link: .experts)
        }
        for (local, pair) in share.pairs.enumerated() {
            (pairOutput + pair * hidden).update(from: rows + local * hidden, count: hidden)
        }
        for (local, row) in share.shared.enumerated() {
            (sharedOutput + row * hidden).update(from: rows + (share.pairs.count + local) * hidden, count: hidden)
        }
    }

    // The offsets come from the request itself, so all five tensors lie inside the buffer.
    private func makeBody(
        _ request: ExpertsRequest
    ) -> (
        AlignedBuffer, UnsafeMutablePointer<Float>, UnsafeMutablePointer<Int32>, UnsafeMutablePointer<Int32>,
        UnsafeMutablePointer<Float>, UnsafeMutablePointer<Int32>
    ) {
        let offsets = request.bodyOffsets
        let body = AlignedBuffer(count: offsets[5])
        func part<Element>(_ index: Int, _: Element.Type) -> UnsafeMutablePointer<Element> {
            (body.pointer + offsets[index]).assumingMemoryBound(to: Element.self)
        }
        return (
            body, part(0, Float.self), part(1, Int32.self), part(2, Int32.self), part(3, Float.self),
            part(4, Int32.self)
        )
    }
}

/// The calls of all shards.
private struct ExpertsShards: Sendable {
    /// What one shard answered. A struct made in a function of its own: as a tuple built in the child task's closure,
    /// around a call with typed throws, the index came back as zero from optimised code (Swift 6.3.1).
    struct Answer: Sendable {
        let index: Int
        let result: Result<AlignedBuffer, RPCError>
    }

    let sets: [ReplicaSet]
    let timeoutMicroseconds: UInt64

    func answer(
        _ index: Int, _ request: ExpertsRequest, _ body: AlignedBuffer, _ trace: TraceContext
    ) async -> Answer {
        do throws(RPCError) {
            return Answer(index: index, result: .success(try await send(index, request, body, trace)))
        } catch {
            return Answer(index: index, result: .failure(error))
        }
    }

    func send(
        _ index: Int, _ request: ExpertsRequest, _ body: AlignedBuffer, _ trace: TraceContext
    ) async throws(RPCError) -> AlignedBuffer {
        do throws(RPCError) {
            let reply = try await sets[index].call(
                .expertsForward, RPCPayload(metadata: request.encoded(), body: body),
                timeoutMicroseconds: timeoutMicroseconds, trace: trace)
            guard let rows = reply.body, rows.count == 4 * request.replyFloats else {
                throw RPCError(.internal, "it answered with a body of the wrong size")
            }
            return rows
        } catch {
            throw error.met(at: .experts, sets[index].name)
        }
    }
}
