import RPC
import Serving
import StatePools

/// What the engine tells the call that waits for a request.
public enum EngineEvent: Sendable {
    /// It holds memory. `transfer` is open when state is received or handed out, and the memory stays untouched by
    /// others until it is ended.
    case admitted(Reservation, transfer: Hold?)
    /// A part of the state is ready to be handed out.
    case segment(TransferSegment)
    /// One more token; with the first one, how many tokens of the prompt had their state kept.
    case token(Token, cached: Int)
    /// The whole prompt is computed; nothing more will be handed out.
    case promptComplete
    /// The request is over.
    case finished(End)
    /// The request failed.
    case failed(RPCError)
    /// A second has passed; keeps the receiver's lease alive.
    case heartbeat
}
