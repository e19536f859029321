import HybridModel
import RPC
import Scheduling
import StatePools
import WireProtocol

/// Where the state of a request lies, layer by layer, and how it travels.
struct StateMap {
    let memory: StateMemory
    /// What each layer of the model keeps.
    let places: [LayerPlace]
    let fingerprint: String

    /// What a peer must have too.
    var layout: StateLayout {
        StateLayout(
            latentLayers: UInt32(memory.latentLayers), latentFloats: UInt32(memory.latentFloats),
            linearLayers: UInt32(memory.linearLayers), stateFloats: UInt32(memory.stateFloats))
    }

    /// Everything that moves for a prompt.
    func manifest(promptTokens: Int, generation: UInt64) throws(TransferRefusal) -> TransferManifest {
        let layers = places.enumerated().map { layer, place in
            switch place {
            case .latent:
                TransferLayer(index: layer, kind: .latent, element: .float32, shape: [memory.latentFloats])
            case .linear:
                TransferLayer(index: layer, kind: .recurrent, element: .float32, shape: [memory.stateFloats])
            }
        }
        return try TransferManifest(
            fingerprint: fingerprint, positions: 0..<promptTokens, pageTokens: StateMemory.pageTokens, layers: layers,
            generation: generation)
    }

    /// The ledger's name of a segment; nil when no layer keeps such a thing.
    func entry(_ segment: StateSegment) -> TransferSegment? {
        guard Int(segment.layer) < places.count else { return nil }
        switch (segment.kind, places[Int(segment.layer)]) {
        case (.latents, .latent(let index)):
            return .latents(
                layer: index, tokens: Int(segment.first)..<(Int(segment.first) + Int(segment.count)))
        case (.state, .linear(let index)): return .recurrent(layer: index)
        default: return nil
        }
    }

    /// Copies a segment out of a request's memory.
    func read(_ segment: StateSegment, _ reservation: Reservation) -> AlignedBuffer {
        let body = AlignedBuffer(count: segment.byteCount(layout))
        let floats = body.pointer.assumingMemoryBound(to: Float.self)
        switch places[Int(segment.layer)] {
        case .latent(let index):
            memory.copyLatents(
                pages: reservation.pages, tokens: Int(segment.first)..<Int(segment.first + segment.count),
                latentIndex: index, into: floats)
        case .linear(let index):
            floats.update(
                from: memory.state(slot: reservation.slot, linearIndex: index), count: memory.stateFloats)
        }
        return body
    }

    /// Puts a segment that the ledger took into a request's memory.
    func write(_ segment: StateSegment, _ body: AlignedBuffer, _ reservation: Reservation) {
        let floats = UnsafePointer(body.pointer.assumingMemoryBound(to: Float.self))
        switch places[Int(segment.layer)] {
        case .latent(let index):
            memory.storeLatents(
                pages: reservation.pages, tokens: Int(segment.first)..<Int(segment.first + segment.count),
                latentIndex: index, from: floats)
        case .linear(let index):
            memory.state(slot: reservation.slot, linearIndex: index)
                .update(from: floats, count: memory.stateFloats)
        }
    }
}
