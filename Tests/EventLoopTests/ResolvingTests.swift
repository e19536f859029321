import EventLoop
import EventLoopTesting
import Testing

/// Names and what they stand for, on both kinds of loop.
struct ResolvingTests {
    @Test func anAddressStandsForItselfAndALocalNameForItsAddress() async throws {
        try await withUVLoop { loop in
            let itself = try await loop.addresses(of: "10.1.2.3")
            let local = try await loop.addresses(of: "localhost")
            #expect(itself == ["10.1.2.3"] && local.contains("127.0.0.1"))
        }
    }

    @Test func aNameThatDoesNotExistIsNamed() async throws {
        try await withUVLoop { loop in
            let error = await #expect(throws: LoopError.self) {
                _ = try await loop.addresses(of: "no-such-host.invalid")
            }
            #expect(error?.description.contains("no-such-host.invalid cannot be resolved") == true)
        }
    }

    @Test func connectsByName() async throws {
        try await withUVLoop { loop in
            let listener = try loop.listen(host: "127.0.0.1", port: 0) { echo($0) }
            let stream = try await loop.connect(
                host: "localhost", port: listener.port, timeoutMicroseconds: 5_000_000)
            let collector = Collector(stream, wanted: 3)
            stream.write([1, 2, 3])
            await collector.complete.wait()
            #expect(collector.bytes.value == [1, 2, 3])
            stream.close()
            listener.close()
        }
    }

    @Test func aLoopStopsDuringALookup() async throws {
        let loop = UVLoop()
        loop.start()
        let lookup = Task(executorPreference: loop) { try await loop.addresses(of: "localhost") }
        loop.stop()
        loop.join()
        // Whether the answer came first is the system's affair; it must be one or the other.
        _ = await lookup.result
    }

    @Test func aNetworkInMemoryAnswersWhatItWasTold() throws {
        let network = MemoryNetwork(seed: 1)
        let loop = network.makeLoop()
        network.setAddresses(of: "twins", ["10.0.0.1", "10.0.0.2"])
        network.setAddresses(of: "nobody", [])
        network.setAddresses(of: "unheard", nil)
        network.assign("10.0.0.2:80", port: 8080)
        let reached = Shared(false)
        loop.execute {
            do { _ = try loop.listen(host: "any", port: 8080) { _ in reached.change { $0 = true } } } catch {
                Issue.record(error)
            }
        }
        let answers = try network.run(on: loop) {
            let twins = try await loop.addresses(of: "twins")
            let nobody = try await loop.addresses(of: "nobody")
            let itself = try await loop.addresses(of: "itself")
            await #expect(throws: LoopError.self) { _ = try await loop.addresses(of: "unheard") }
            _ = try await loop.connect(host: "10.0.0.2", port: 80, timeoutMicroseconds: 1_000_000)
            await #expect(throws: LoopError.self) {
                _ = try await loop.connect(host: "10.0.0.1", port: 80, timeoutMicroseconds: 1_000_000)
            }
            return [twins, nobody, itself]
        }
        network.runUntilIdle(limitMicroseconds: 1_000_000)
        #expect(answers == [["10.0.0.1", "10.0.0.2"], [], ["itself"]])
        #expect(reached.value)
    }
}
