import HybridModel
import RPC
import StatePools
import WireProtocol

/// Fills the segments of one hand-out from the memory of its reservation, while the transfer is open.
struct StateSender {
    let state: StateMemory
    let reservation: Reservation
    /// Segments with a body so far.
    private(set) var segmentCount: UInt32 = 0

    init(state: StateMemory, reservation: Reservation) {
        self.state = state
        self.reservation = reservation
    }

    /// The item for a segment that the engine says is ready.
    mutating func payload(_ segment: StateSegment) -> RPCPayload {
        let body = AlignedBuffer(count: segment.byteCount(state.layout))
        let floats = body.pointer.assumingMemoryBound(to: Float.self)
        switch segment.kind {
        case .progress: break
        case .latents:
            state.copyLatents(
                pages: reservation.pages, tokens: Int(segment.first)..<Int(segment.first + segment.count),
                latentIndex: Int(segment.layer), into: floats)
        case .state:
            floats.update(
                from: state.state(slot: reservation.slot, linearIndex: Int(segment.layer)), count: state.stateFloats)
        }
        segmentCount += 1
        return RPCPayload(metadata: segment.encoded(), body: body)
    }
}

extension StateMemory {
    /// What a peer must have too.
    var layout: StateLayout {
        StateLayout(
            latentLayers: UInt32(latentLayers), latentFloats: UInt32(latentFloats),
            linearLayers: UInt32(linearLayers), stateFloats: UInt32(stateFloats))
    }
}
