import EventLoop

/// Who listens, who is connected, and what names stand for.
extension MemoryNetwork {
    /// The port that a listener on `port` gets: itself, or of 0 one that is free.
    func freePort(_ port: Int) throws(LoopError) -> Int {
        guard !isClosed else { throw LoopError("cannot listen on port \(port): the network is closed") }
        guard (0...65535).contains(port) else { throw LoopError("cannot listen on port \(port): not a port") }
        var chosen = port
        while chosen == 0 || (port == 0 && listeners[chosen] != nil) {
            chosen = nextPort
            nextPort = nextPort == 65535 ? 49_152 : nextPort + 1
        }
        guard listeners[chosen] == nil else { throw LoopError("cannot listen on port \(chosen): address in use") }
        return chosen
    }

    func listen(_ listener: MemoryListener) { listeners[listener.port] = listener }

    func stopListening(_ listener: MemoryListener) {
        if listeners[listener.port] === listener { listeners[listener.port] = nil }
    }

    func listener(port: Int) -> MemoryListener? { listeners[port] }

    func nextStreamNumber() -> Int {
        streamCount += 1
        return streamCount
    }

    func opened(_ stream: MemoryStream) { streams[stream.number] = stream }

    func closed(_ stream: MemoryStream) { streams[stream.number] = nil }

    /// Open ends in the order in which they were opened.
    private var streamsInOrder: [MemoryStream] { streams.sorted { $0.key < $1.key }.map(\.value) }

    /// Breaks every connection to `port` (all connections without one) as a pulled cable would, noticed at once:
    /// bytes under way are lost and both ends close with an error. Returns how many ends it broke.
    @discardableResult
    public func cut(port: Int? = nil) -> Int {
        let broken = streamsInOrder.filter { port == nil || $0.port == port }
        for stream in broken { stream.fail(LoopError("\(stream.peer): connection reset by peer")) }
        return broken.count
    }

    /// Breaks the next connection to `port` once the client has been sent, or has sent, `bytes` bytes in all.
    public func cutNextConnection(port: Int, afterBytes bytes: Int) { cuts[port] = bytes }

    func takeCut(port: Int) -> Int? { cuts.removeValue(forKey: port) }

    // MARK: Frozen peers

    /// From now on what connected to `port` takes no bytes, as a process that was stopped would not, until `thaw`.
    public func freezeClients(of port: Int) { frozen.insert(port) }

    /// Ends `freezeClients`.
    public func thaw() {
        frozen.removeAll()
        for stream in streamsInOrder { stream.loop.execute { stream.thaw() } }
    }

    func isFrozen(_ stream: MemoryStream) -> Bool { stream.isClient && frozen.contains(stream.port) }

    // MARK: Names

    /// What lookups of `name` find from now on: addresses, none at all, or, with nil, that there is no such name. A name
    /// that nothing was said about stands for itself.
    public func setAddresses(of name: String, _ addresses: [String]?) {
        names.updateValue(addresses, forKey: name)
    }

    /// Connections to `address` go to the listener on `port` of the network.
    public func assign(_ address: String, port: Int) { assignments[address] = port }

    func assigned(_ address: String) -> Int? { assignments[address] }

    func lookUp(_ name: String) -> Result<[String], LoopError> {
        guard !isClosed else { return .failure(LoopError("\(name) cannot be resolved: the network is closed")) }
        guard let answer = names[name] else { return .success([name]) }
        guard let answer else { return .failure(LoopError("\(name) cannot be resolved: unknown node or service")) }
        return .success(answer)
    }
}
