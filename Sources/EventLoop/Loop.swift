/// Why a loop could not do something. `description` is one sentence.
public struct LoopError: Error, Sendable, Equatable, CustomStringConvertible {
    /// One sentence with the address or operation and the reason.
    public let description: String
    /// True when another program has the port.
    public let isAddressInUse: Bool

    /// An error with its sentence.
    public init(_ description: String, isAddressInUse: Bool = false) {
        self.description = description
        self.isAddressInUse = isAddressInUse
    }
}

/// An event loop that is also the executor of the tasks and actors pinned to it: everything it calls, it calls on its
/// own thread, and everything declared here but `enqueue` and `execute` is called there.
public protocol Loop: AnyObject, SerialExecutor, TaskExecutor, Sendable {
    /// Monotonic time in microseconds.
    var now: UInt64 { get }
    /// A random number: the system's, or the seeded network's.
    func random(in range: ClosedRange<UInt64>) -> UInt64
    /// Calls `action` on the loop as soon as it gets to it; from any thread.
    func execute(_ action: @escaping @Sendable () -> Void)
    /// Calls `action` once, `microseconds` from now.
    @discardableResult
    func schedule(afterMicroseconds microseconds: UInt64, _ action: @escaping @Sendable () -> Void) -> any LoopTimer
    /// Accepts connections on `host:port`, an address or a name; port 0 takes a free one.
    func listen(
        host: String, port: Int, onAccept: @escaping @Sendable (any ByteStream) -> Void
    ) throws(LoopError) -> any Listener
    /// Addresses of instances that `host` stands for now; an address stands for itself.
    func addresses(of host: String) async throws(LoopError) -> [String]
    /// Connects to `host:port`, resolving a name if need be.
    func connect(host: String, port: Int, timeoutMicroseconds: UInt64) async throws(LoopError) -> any ByteStream
}

/// A pending `schedule`.
public protocol LoopTimer: AnyObject, Sendable {
    /// Forgets the action; harmless after it ran.
    func cancel()
}

/// A listening socket.
public protocol Listener: AnyObject, Sendable {
    /// The port it listens on.
    var port: Int { get }
    /// Stops accepting.
    func close()
}

/// A connected, ordered stream of bytes. Confined to its loop.
public protocol ByteStream: AnyObject, Sendable {
    /// Begins reading. `onClose` is called exactly once, with nil when the peer or we closed in order.
    func start(
        onBytes: @escaping @Sendable (UnsafeRawBufferPointer) -> Void,
        onClose: @escaping @Sendable (LoopError?) -> Void)
    /// Sends `bytes`; queued without bound, so writers watch `pendingWriteBytes`.
    func write(_ bytes: [UInt8])
    /// Sends `head`, then `body`, which is not copied: `owner` keeps it alive until it is out.
    func write(_ head: [UInt8], body: UnsafeRawBufferPointer, owner: any AnyObject & Sendable)
    /// Bytes queued and not yet taken by the system.
    var pendingWriteBytes: Int { get }
    /// Bytes the system has taken so far: it grows as long as the peer reads.
    var takenBytes: UInt64 { get }
    /// Called when everything queued has been taken by the system.
    var onDrained: (@Sendable () -> Void)? { get set }
    /// Called once when the peer has sent all it will and may still read, or has gone: only what is written to it tells.
    /// A stream without it is closed then.
    var onEnd: (@Sendable () -> Void)? { get set }
    /// Stops reading, so that the peer feels it.
    func pauseReading()
    /// Reads again.
    func resumeReading()
    /// Tells the peer, once what is queued has been taken, that nothing more will come. What the peer sends is still read;
    /// what is written afterwards is dropped.
    func endWriting()
    /// Closes once what is queued has been taken, or at once if nothing is. A peer that has not taken it
    /// `withinMicroseconds` from now is cut off as by `abort`.
    func close(withinMicroseconds: UInt64)
    /// Resets the connection at once; what is queued is dropped, and the peer sees an error.
    func abort()
    /// Address of the peer, for logs.
    var peer: String { get }
}

extension ByteStream {
    /// Closes once what is queued has been taken, and cuts off a peer that has not taken it after ten seconds.
    public func close() { close(withinMicroseconds: 10_000_000) }
}
