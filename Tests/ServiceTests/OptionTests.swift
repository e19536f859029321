import Foundation
import ServiceSupport
import Testing

/// Flags and `IRONLING_*` variables, as values.
struct OptionTests {
    private let options = CommandLineOptions(
        program: "p", summary: "s",
        options: [
            CommandLineOption("model", value: "DIR", help: "h"),
            CommandLineOption("host", value: "ADDRESS", help: "h", fallback: "127.0.0.1"),
            CommandLineOption("port", value: "PORT", help: "h", fallback: "7001"),
            CommandLineOption("http-port", value: "PORT", help: "h", fallback: "8000"),
            CommandLineOption("kind", value: "one|two|three", help: "h", fallback: "one"),
            CommandLineOption("secret-file", value: "FILE", help: "h", guards: true),
            CommandLineOption("json", help: "h"),
        ], position: "model")

    private func parse(_ arguments: [String] = [], _ environment: [String: String] = [:]) throws -> OptionValues {
        try #require(try options.parse(arguments, environment: environment))
    }

    private func refusal(_ arguments: [String] = [], _ environment: [String: String] = [:]) -> String {
        do throws(UsageError) {
            _ = try options.parse(arguments, environment: environment)
            return ""
        } catch {
            return error.description
        }
    }

    @Test func anEmptyVariableIsAnAbsentOne() throws {
        let values = try parse(
            [], ["IRONLING_HOST": "", "IRONLING_KIND": "", "IRONLING_JSON": "", "IRONLING_MODEL": ""])
        #expect(values.text("host") == "127.0.0.1" && values.text("kind") == "one" && !values.isOn("json"))
        #expect(values.text("model") == nil)
    }

    @Test func whatKeepsSomebodyOutIsNeverEmpty() throws {
        #expect(refusal([], ["IRONLING_SECRET_FILE": ""]).contains("IRONLING_SECRET_FILE is empty"))
        #expect(refusal(["--secret-file", ""]).contains("--secret-file is empty"))
        #expect(refusal(["--secret-file="]).contains("--secret-file is empty"))
        #expect(try parse(["--secret-file", "x"], ["IRONLING_SECRET_FILE": ""]).text("secret-file") == "x")
    }

    @Test func variablesOfAServiceOfKubernetesAreLeftAside() throws {
        let environment = [
            "IRONLING_SERVICE_HOST": "10.96.0.17", "IRONLING_SERVICE_PORT": "8000",
            "IRONLING_SERVICE_PORT_HTTP": "8000",
            "IRONLING_PORT": "tcp://10.96.0.17:8000", "IRONLING_PORT_8000_TCP": "tcp://10.96.0.17:8000",
            "IRONLING_PORT_8000_TCP_PROTO": "tcp", "IRONLING_PORT_8000_TCP_PORT": "8000",
            "IRONLING_PORT_8000_TCP_ADDR": "10.96.0.17", "IRONLING_HTTP_PORT": "tcp://10.96.0.18:8000",
            "IRONLING_HTTP_SERVICE_HOST": "10.96.0.18", "IRONLING_HTTP_PORT_53_UDP_ADDR": "10.96.0.18",
        ]
        let values = try parse([], environment)
        #expect(try values.integer("port", in: 0...65535) == 7001 && values.integer("http-port", in: 0...65535) == 8000)
        let notices = OptionEnvironment(environment).notices(program: "p")
        #expect(notices.count == 1 && notices[0].contains("tcp://") && notices[0].contains("Kubernetes"), "\(notices)")
        #expect(try parse([], ["IRONLING_PORT": "7005"]).integer("port", in: 0...65535) == 7005)
    }

    @Test func aVariableThatNobodyKnowsIsNamed() {
        let environment = [
            "IRONLING_MODLE": "x", "IRONLING_HTPP_PORT": "1", "IRONLING_PLACEMENT": "round-robin", "PATH": "",
        ]
        let notices = OptionEnvironment(environment).notices(program: "p")
        #expect(notices.count == 2, "\(notices)")
        #expect(notices.contains { $0.contains("IRONLING_MODLE") && $0.contains("did you mean IRONLING_MODEL?") })
        #expect(
            notices.contains { $0.contains("IRONLING_HTPP_PORT") && $0.contains("did you mean IRONLING_HTTP_PORT?") })
    }

    @Test func aServiceGetsWhatIsMeantForIt() {
        let environment = [
            "IRONLING_WEIGHTS": "map", "IRONLING_PORT": "tcp://1.2.3.4:1", "IRONLING_MODLE": "x", "IRONLING_HOST": "h",
            "PATH": "/bin",
        ]
        let passed = OptionEnvironment(environment).forServices(without: ["host"])
        #expect(passed == ["IRONLING_WEIGHTS": "map", "PATH": "/bin"])
    }

    @Test func aSwitchIsTrueOrFalse() throws {
        for text in ["true", "1", "yes", "ON", "True"] { #expect(try parse([], ["IRONLING_JSON": text]).isOn("json")) }
        for text in ["false", "0", "no", "off"] { #expect(try !parse([], ["IRONLING_JSON": text]).isOn("json")) }
        #expect(refusal([], ["IRONLING_JSON": "maybe"]).contains("IRONLING_JSON is a switch"))
    }

    @Test func whatWasMeantIsGuessed() {
        #expect(refusal(["--modle", "x"]).contains("did you mean --model?"))
        #expect(refusal(["--prot", "1"]).contains("did you mean --port?"))
        #expect(!refusal(["--quixotic", "1"]).contains("did you mean"))
        let kind = refusal(["--kind", "tow"])
        #expect(kind.contains("--kind is one, two or three, not \"tow\", did you mean two?"), "\(kind)")
        #expect(refusal([], ["IRONLING_KIND": "four"]).contains("IRONLING_KIND is one, two or three"))
        #expect(Spelling.nearest(to: "genrate", among: ["generate", "chat", "load"]) == "generate")
        #expect(Spelling.nearest(to: "gen", among: ["generate", "chat", "load"]) == "generate")
        #expect(Spelling.nearest(to: "", among: ["a"]) == nil)
    }

    @Test func oneValueMayStandAlone() throws {
        #expect(try parse(["folder"]).text("model") == "folder")
        #expect(try parse(["--json", "folder", "--port", "1"]).text("model") == "folder")
        #expect(try parse(["folder"], ["IRONLING_MODEL": "other"]).text("model") == "folder")
        #expect(refusal(["folder", "other"]).contains("unexpected argument \"other\""))
        #expect(refusal(["--model", "folder", "other"]).contains("unexpected argument \"other\""))
    }

    @Test(arguments: [
        ("127.0.0.1:7001", "127.0.0.1", 7001), ("[::1]:7001", "::1", 7001), ("name:1", "name", 1),
        ("[fe80::1%lo]:65535", "fe80::1%lo", 65535), ("a.b.svc.cluster.local:80", "a.b.svc.cluster.local", 80),
    ])
    func placesAreRead(text: String, host: String, port: Int) {
        #expect(HostPort(text) == HostPort(host: host, port: port))
        #expect(HostPort(text)?.description == text)
    }

    @Test(arguments: [
        "", ":", ":1", "a", "a:", "a:0", "a:65536", "a:+1", "::1:7001", "[::1]", "[]:1", "[name]:1", "[::1:7001",
        "::1]:7001", "a:٣", "a:99999999999999999999",
    ])
    func whatIsNoPlaceIsRefused(text: String) {
        #expect(HostPort(text) == nil)
        #expect(throws: UsageError.self) { try OptionValues(values: ["x": text]).addresses("x") }
    }

    @Test(arguments: [("", "secret"), ("\n", "secret"), ("\r\n", "secret"), ("\n\r\n\n", "secret")])
    func aLineEndIsNoPartOfASecret(end: String, secret: String) throws {
        let file = FileManager.default.temporaryDirectory.appendingPathComponent("secret-\(UUID().uuidString)")
        defer { try? FileManager.default.removeItem(at: file) }
        try Data((secret + end).utf8).write(to: file)
        #expect(try ServiceProcess.secret(file: file.path) == Array(secret.utf8))
        try Data(end.utf8).write(to: file)
        #expect(throws: StartError.self) { _ = try ServiceProcess.secret(file: file.path) }
        try Data((" \(secret)" + end).utf8).write(to: file)
        #expect(try ServiceProcess.secret(file: file.path) == Array(" \(secret)".utf8))
    }

    /// Variables of one program are often set for another, which has to know them as options of somebody.
    @Test func everyOptionOfEveryProgramIsKnown() throws {
        let commands = try Executables.ironling(["--help"]).output.split(separator: "\n").filter { $0.hasPrefix("  ") }
            .map { $0.prefix { $0 != "\t" }.split(separator: " ").map(String.init) }
        let helps =
            try commands.map { try Executables.ironling($0 + ["--help"]).output }
            + ["gateway", "attention", "experts", "sampler"].map {
                try Executables.run("ironling-\($0)", ["--help"]).output
            }
        let shown = Set(helps.flatMap { $0.matches(of: #/(?m)^  --([a-z0-9-]+)/#).map { String($0.1) } })
        let names = shown.subtracting(["help", "version"])
        #expect(names.count > 100)
        #expect(names.subtracting(KnownOptions.all).isEmpty, "give these a title in KnownOptions")
        #expect(Set(KnownOptions.all).subtracting(names).isEmpty, "nobody has these any more")
    }

    @Test func aListenerIsCalledAtAnAddressOfItsOwn() {
        func url(_ host: String) -> String { HostPort.calling(listener: host, port: 8000).description }
        #expect(url("0.0.0.0") == "127.0.0.1:8000" && url("::") == "[::1]:8000" && url("[::]") == "[::1]:8000")
        #expect(
            url("::1") == "[::1]:8000" && url("localhost") == "localhost:8000" && url("10.1.2.3") == "10.1.2.3:8000")
    }
}
