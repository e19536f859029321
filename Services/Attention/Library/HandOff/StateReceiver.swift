import HybridModel
import RPC
import StatePools
import WireProtocol

/// Checks the segments of one hand-off and puts them into the memory of the reservation they were asked for, while the
/// transfer is open. Every token of every MLA layer and every recurrent state must come exactly once.
struct StateReceiver {
    private let state: StateMemory
    private let reservation: Reservation
    private let promptCount: Int
    private var nextToken: [Int]
    private var hasState: [Bool]
    private(set) var byteCount = 0
    private var segmentCount: UInt32 = 0

    init(state: StateMemory, reservation: Reservation, promptCount: Int) {
        self.state = state
        self.reservation = reservation
        self.promptCount = promptCount
        nextToken = Array(repeating: 0, count: state.latentLayers)
        hasState = Array(repeating: false, count: state.linearLayers)
    }

    /// Takes one item in; throws `internal` with a sentence when it does not belong here.
    mutating func accept(_ item: RPCPayload) throws(RPCError) {
        let segment: StateSegment
        do throws(WireError) { segment = try StateSegment(decoding: item.metadata) } catch { throw refuse("\(error)") }
        guard segment.generation == reservation.generation else {
            throw refuse("it has generation \(segment.generation), not \(reservation.generation)")
        }
        guard segment.kind != .progress else { return }
        guard let body = item.body, body.count == segment.byteCount(state.layout) else {
            throw refuse("its body has \(item.body?.count ?? 0) bytes, not \(segment.byteCount(state.layout))")
        }
        try place(segment, UnsafePointer(body.pointer.assumingMemoryBound(to: Float.self)))
        segmentCount += 1
        byteCount += body.count
    }

    private mutating func place(_ segment: StateSegment, _ rows: UnsafePointer<Float>) throws(RPCError) {
        let layer = Int(segment.layer)
        switch segment.kind {
        case .progress: break
        case .latents:
            let end = Int(segment.first) + Int(segment.count)
            guard layer < nextToken.count, Int(segment.first) == nextToken[layer], segment.count > 0, end <= promptCount
            else { throw refuse("latents of layer \(layer) from \(segment.first) to \(end) are not what comes next") }
            state.storeLatents(
                pages: reservation.pages, tokens: nextToken[layer]..<end, latentIndex: layer, from: rows)
            nextToken[layer] = end
        case .state:
            guard layer < hasState.count, !hasState[layer] else {
                throw refuse("the state of layer \(layer) is unknown or came before")
            }
            state.state(slot: reservation.slot, linearIndex: layer).update(from: rows, count: state.stateFloats)
            hasState[layer] = true
        }
    }

    /// Throws unless everything has come.
    func finish(_ end: PrefillEnd, needsToken: Bool) throws(RPCError) {
        guard nextToken.allSatisfy({ $0 == promptCount }), hasState.allSatisfy(\.self), end.segments == segmentCount
        else { throw refuse("the end came after \(segmentCount) of \(end.segments) segments, with parts missing") }
        guard !needsToken || end.token != nil else { throw refuse("the end has no token") }
    }

    private func refuse(_ reason: String) -> RPCError { RPCError(.internal, "a segment was refused: \(reason)") }
}
