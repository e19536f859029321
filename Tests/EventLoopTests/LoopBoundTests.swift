import EventLoop
import Testing

struct LoopBoundTests {
    private struct Counts {
        var calls = 0
        var names: [String] = []
    }

    @Test func membersAreReadAndWrittenOnTheLoop() async throws {
        let names = try await withUVLoop { loop in
            let counts = LoopBound(Counts(), on: loop)
            counts.calls += 2
            counts.names.append("a")
            counts.value.names.append("b")
            #expect(counts.calls == 2)
            return counts.names
        }
        #expect(names == ["a", "b"])
    }

    #if DEBUG
        @Test func anAccessOffTheLoopTraps() async {
            await #expect(processExitsWith: .failure) {
                let loop = UVLoop()
                loop.start()
                let counts = LoopBound(0, on: loop)
                counts.value += 1
            }
        }
    #endif
}
