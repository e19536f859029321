import Foundation
import Glibc
import RPC
import ServiceSupport
import Serving
import Testing
import WireProtocol

/// Starting, dying, being restarted and stopped.
@Suite(.serialized, .timeLimit(.minutes(2))) struct LifecycleTests {
    @Test func servicesEndWithACommandThatIsKilled() async throws {
        let set = try await RunningSet("base", ["--experts", "2"])
        let services = ServiceProcesses.children(of: set.processID)
        #expect(services.count == 5)
        kill(set.processID, SIGKILL)
        let areGone = await ServiceProcesses.wait(seconds: 10) {
            !services.contains { ServiceProcesses.isAlive($0.processID) }
        }
        #expect(areGone, "\(services.filter { ServiceProcesses.isAlive($0.processID) })")
        _ = set.stop()
    }

    @Test(arguments: ["ironling-experts", "ironling-sampler", "ironling-attention", "ironling-gateway"])
    func aServiceThatDiesIsStartedAgain(name: String) async throws {
        let set = try await RunningSet("base")
        let wanted = try await set.withClient { try await tokens($0, request([1, 2, 3], 8)) }
        let victim = try #require(ServiceProcesses.children(of: set.processID).first { $0.name == name })
        kill(victim.processID, SIGKILL)
        let isBack = await ServiceProcesses.wait {
            ServiceProcesses.children(of: set.processID).contains {
                $0.name == name && $0.processID != victim.processID
            }
        }
        #expect(isBack)
        // A call that finds the service away may fail, and says so; soon it succeeds.
        var answer: [Token]?
        for _ in 0..<20 where answer == nil {
            answer = try? await set.withClient { try await tokens($0, request([1, 2, 3], 8)) }
        }
        #expect(answer == wanted)
        #expect(set.stop() == 0)
        #expect(ServiceProcesses.children(of: set.processID).isEmpty)
    }

    @Test func stoppingFinishesTheStreamsInFlight() async throws {
        let set = try await RunningSet("base", ["--experts", "2"])
        let services = ServiceProcesses.children(of: set.processID)
        let answer = try await set.withClient { client in
            let stream = try await client.stream(
                .generate, RPCPayload(metadata: request([1, 2, 3], 480).encoded()), timeoutMicroseconds: 60_000_000)
            var all: [Token] = []
            while let payload = try await stream.next() {
                all += try GenerateItem(decoding: payload.metadata).tokens
                if all.count == 1 { kill(set.processID, SIGTERM) }
            }
            return all
        }
        #expect(answer.count == 480)
        #expect(set.stop(wasBegun: true) == 0)
        #expect(!services.contains { ServiceProcesses.isAlive($0.processID) })
    }

    @Test func environmentVariablesMirrorFlags() async throws {
        let set = try await RunningSet(
            "base", environment: ["IRONLING_EXPERTS": "3", "IRONLING_BYTE_TOKENIZER": "true", "IRONLING_SLOTS": "5"],
            servesMetrics: true)
        #expect(ServiceProcesses.children(of: set.processID).count { $0.name == "ironling-experts" } == 3)
        let socket = try #require(RawSocket(port: set.httpPort))
        socket.send("GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        #expect(socket.receive(until: "refused_total 0").contains("ironling_attention_slots{instance=\"0\"} 5"))
        let text = request([], 4)
        var asText = text
        asText.prompt = .text("abc")
        let prompt = asText
        #expect(try await set.withClient { try await tokens($0, prompt) }.count == 4)
        #expect(set.stop() == 0)
        let result = try Executables.run(
            "ironling-sampler", [],
            environment: ["IRONLING_MODEL": Executables.modelFolder("base").path, "IRONLING_THREADS": "zero"])
        #expect(result.status == 64 && result.error.contains("--threads"), "\(result.error)")
    }

    @Test func upBoundsWhatItsServicesTake() async throws {
        let set = try await RunningSet(
            "base", ["--timeout", "77", "--http-connections", "78", "--http-body", "2048", "--queue", "79"])
        let lines = ServiceProcesses.children(of: set.processID).map {
            ServiceProcesses.text("/proc/\($0.processID)/cmdline").split(separator: "\0").joined(separator: " ")
        }
        let gateway = try #require(lines.first { $0.contains("ironling-gateway") })
        for option in ["--timeout 77", "--http-connections 78", "--http-body 2048"] {
            #expect(gateway.contains(option), "\(gateway)")
        }
        #expect(lines.contains { $0.contains("ironling-attention") && $0.contains("--queue 79") })
        let socket = try #require(RawSocket(port: set.httpPort))
        socket.send("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2049\r\n\r\n")
        #expect(socket.receive().contains("The body exceeds 2048 bytes."))
        #expect(set.stop() == 0)
    }

    @Test func filesThatCannotBeReadAreNamedWithTheReason() throws {
        let model = Executables.modelFolder("base").path
        let gateway = ["--model", model, "--attention", "127.0.0.1:1", "--byte-tokenizer", "--api-keys-file"]
        let folder = FileManager.default.temporaryDirectory.path
        for (file, reason) in [("/nope", "No such file or directory"), (folder, "")] {
            let result = try Executables.run("ironling-gateway", gateway + [file])
            let start = "ironling-gateway: --api-keys-file \(file): \(reason)"
            #expect(result.status == 1 && result.error.hasPrefix(start), "\(result.error)")
            #expect(!result.error.contains("Error Domain") && !result.error.contains("NSCocoa"), "\(result.error)")
        }
    }

    @Test func flagsGoBeforeTheEnvironmentAndThatBeforeDefaults() throws {
        let options = CommandLineOptions(
            program: "p", summary: "s",
            options: [
                CommandLineOption("some-name", value: "N", help: "h", fallback: "1"),
                CommandLineOption("switch", help: "h"),
            ])
        func value(_ arguments: [String], _ environment: [String: String]) throws -> Int? {
            try options.parse(arguments, environment: environment)?.integer("some-name", in: 0...9)
        }
        #expect(try value([], [:]) == 1)
        #expect(try value([], ["IRONLING_SOME_NAME": "2"]) == 2)
        #expect(try value(["--some-name", "3"], ["IRONLING_SOME_NAME": "2"]) == 3)
        #expect(try value(["--some-name=4"], [:]) == 4)
        #expect(try options.parse([], environment: ["IRONLING_SWITCH": "1"])?.isOn("switch") == true)
        #expect(try options.parse(["--help"], environment: [:]) == nil)
    }

    @Test func restartsAreBoundedAndPausesGrow() {
        var policy = RestartPolicy()
        var pauses: [UInt64] = []
        while let pause = policy.died(started: 0, now: 1), pauses.count < 100 { pauses.append(pause) }
        #expect(pauses.count == RestartPolicy.maximumDeaths - 1)
        #expect(pauses.first == RestartPolicy.firstPause && pauses.last == RestartPolicy.longestPause)
        #expect(pauses == pauses.sorted())
        #expect(policy.died(started: 0, now: RestartPolicy.healthyTime) == RestartPolicy.firstPause)
    }

    /// A service started by hand on a free port; ends with the test.
    private final class Service {
        let port: Int
        private let process = Process()

        init(_ program: String, _ arguments: [String]) throws {
            process.executableURL = Executables.folder.appendingPathComponent(program)
            process.arguments =
                ["--model", Executables.modelFolder("base").path, "--port", "0", "--log-level", "error"] + arguments
            let output = Pipe()
            process.standardOutput = output
            try process.run()
            let text = String(decoding: output.fileHandleForReading.availableData, as: UTF8.self)
            let digits = text.split(separator: "on port ").last?.prefix { $0.isNumber } ?? ""
            port = try #require(Int(digits), "\(text)")
        }

        deinit { process.terminate() }
    }

    @Test func aPeerThatTakesFewerRowsIsNamedAtStart() throws {
        let sampler = try Service("ironling-sampler", ["--maximum-rows", "8"])
        let experts = try Service("ironling-experts", [])
        let arguments = [
            "--model", Executables.modelFolder("base").path, "--port", "0", "--sampler", "127.0.0.1:\(sampler.port)",
            "--experts", "127.0.0.1:\(experts.port)",
        ]
        for (own, word) in [
            (["--slots", "9"], "sampler takes 8 rows"),
            (["--slots", "8", "--prefill-chunk", "1024"], "experts process 0 takes 1024"),
        ] {
            let result = try Executables.run("ironling-attention", arguments + own)
            #expect(result.status == 1 && result.error.contains(word), "\(result.error)")
            #expect(result.error.contains("--maximum-rows"))
        }
    }
}
