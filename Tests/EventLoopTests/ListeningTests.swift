import EventLoop
import Testing

/// Addresses and names to listen on and to call, of both families.
struct ListeningTests {
    /// Sends three bytes to `host` and returns what comes back.
    private func ask(_ loop: UVLoop, _ host: String, _ port: Int) async throws -> [UInt8] {
        let stream = try await loop.connect(host: host, port: port, timeoutMicroseconds: 5_000_000)
        let collector = Collector(stream, wanted: 3)
        stream.write([1, 2, 3])
        await collector.complete.wait()
        stream.close()
        return collector.bytes.value
    }

    @Test(arguments: [
        ("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("[::1]", "[::1]"), ("localhost", "localhost"),
        ("localhost", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("::", "127.0.0.1"),
        ("127.0.0.1", "localhost"),
    ])
    func whoListensIsReached(listened: String, called: String) async throws {
        try await withUVLoop { loop in
            let listener = try loop.listen(host: listened, port: 0) { echo($0) }
            #expect(try await ask(loop, called, listener.port) == [1, 2, 3])
            listener.close()
        }
    }

    @Test func bothFamiliesOfANameAreOnOnePort() async throws {
        try await withUVLoop { loop in
            let listener = try loop.listen(host: "localhost", port: 0) { echo($0) }
            defer { listener.close() }
            for address in try await loop.addresses(of: "localhost") {
                #expect(try await ask(loop, address, listener.port) == [1, 2, 3], "\(address)")
            }
        }
    }

    @Test func peersOfBothFamiliesAreNamedAsTheyAreWritten() async throws {
        try await withUVLoop { loop in
            let peers = Shared<[String]>([])
            let listener = try loop.listen(host: "::", port: 0) { stream in
                peers.change { $0.append(stream.peer) }
                echo(stream)
            }
            _ = try await ask(loop, "127.0.0.1", listener.port)
            _ = try await ask(loop, "::1", listener.port)
            #expect(peers.value.count == 2)
            #expect(peers.value.first?.hasPrefix("127.0.0.1:") == true && peers.value.last?.hasPrefix("[::1]:") == true)
            listener.close()
        }
    }

    @Test func aPortIsTakenBeforeItIsListenedOn() async throws {
        try await withUVLoop { loop in
            let port = try loop.reserve(host: "127.0.0.1", port: 0)
            await #expect(throws: LoopError.self) {
                _ = try await loop.connect(host: "127.0.0.1", port: port, timeoutMicroseconds: 1_000_000)
            }
            let listener = try loop.listen(host: "127.0.0.1", port: port) { echo($0) }
            #expect(listener.port == port)
            #expect(try await ask(loop, "127.0.0.1", port) == [1, 2, 3])
            for host in ["127.0.0.1", "0.0.0.0", "localhost"] {
                let error = #expect(throws: LoopError.self) { _ = try loop.reserve(host: host, port: port) }
                #expect(error?.isAddressInUse == true && error?.description.contains("in use") == true, "\(host)")
            }
            listener.close()
        }
    }

    @Test func aLoopThatEndsGivesItsPortsBack() async throws {
        let port = try await withUVLoop { try $0.reserve(host: "127.0.0.1", port: 0) }
        try await withUVLoop { loop in
            let listener = try loop.listen(host: "127.0.0.1", port: port) { echo($0) }
            listener.close()
        }
    }

    @Test(arguments: ["", "no-such-host.invalid", "1.2.3.4.5", "::1::2", "192.0.2.1"])
    func whatCannotBeListenedOnIsNamed(host: String) async throws {
        try await withUVLoop { loop in
            let error = #expect(throws: LoopError.self) { _ = try loop.listen(host: host, port: 0) { $0.close() } }
            #expect(error?.description.hasPrefix("cannot listen on ") == true, "\(String(describing: error))")
            #expect(error?.isAddressInUse == false)
        }
    }

    @Test func anAddressIsWrittenWithBracketsWhereAPortFollows() {
        #expect(SocketAddress.text("::1", 80) == "[::1]:80" && SocketAddress.text("[::1]", 80) == "[::1]:80")
        #expect(SocketAddress.text("10.0.0.1", 80) == "10.0.0.1:80" && SocketAddress.text("name", 80) == "name:80")
        #expect(SocketAddress("::1", port: 65536) == nil && SocketAddress("name", port: 1) == nil)
    }
}
