import EventLoop

/// Looks a name up again and again, and tells who joined and who left: the I/O around `Discovery`. One lookup runs at a
/// time, and the next begins a pause after it has ended. Confined to its loop.
public final class AddressWatch: Sendable {
    private struct State {
        var isClosed = false
        var discovery: Discovery
        var lastError: LoopError?
    }

    private let host: String
    private let loop: any Loop
    private let onChange: @Sendable (Discovery.Change) -> Void
    private let waiters = Waiters()
    private let state: LoopBound<State>
    /// What is known.
    public var discovery: Discovery { state.discovery }
    /// Why the last lookup failed, if it did.
    public var lastError: LoopError? { state.lastError }

    /// A watch over the instances behind `host`. An address is looked up once: it stands for itself.
    public init(
        host: String, loop: any Loop, limits: Discovery.Limits = Discovery.Limits(),
        onChange: @escaping @Sendable (Discovery.Change) -> Void
    ) {
        self.host = host
        self.loop = loop
        self.onChange = onChange
        state = LoopBound(State(discovery: Discovery(limits: limits)), on: loop)
    }

    /// True for a name, which may stand for many instances and for others tomorrow; false for an address, and for
    /// `localhost`, which is one machine however many addresses it has.
    public static func isName(_ host: String) -> Bool {
        host != "localhost" && SocketAddress(host, port: 0) == nil
    }

    /// Begins, and keeps at it until `close`.
    public func start() {
        guard Self.isName(host) else { return take([host]) }
        Task.immediate(executorPreference: loop) { [weak self] in
            while let self, !state.isClosed {
                await lookUp()
                await waiters.wait(loop, atMostMicroseconds: discovery.pauseMicroseconds) { !state.isClosed }
            }
        }
    }

    private func lookUp() async {
        do throws(LoopError) {
            let addresses = try await loop.addresses(of: host)
            state.lastError = nil
            take(addresses)
        } catch {
            state.lastError = error
            state.value.discovery.failed()
        }
    }

    private func take(_ addresses: [String]) {
        guard !state.isClosed else { return }
        for change in state.value.discovery.answered(addresses) { onChange(change) }
    }

    /// Looks nothing up any more.
    public func close() {
        state.isClosed = true
        waiters.wake()
    }
}
