import Foundation
import Testing

/// The targets of a manifest as far as arrows between them go.
struct PackageGraph {
    /// What each target depends on.
    private(set) var dependencies: [String: [String]] = [:]

    /// The targets that a manifest's text declares, by `.target` and the like or by one of its helpers. What a helper
    /// itself writes has names that are put together, and is known here.
    init(manifest: String) {
        for match in manifest.matches(of: #/(\.\w*[tT]arget|\.systemLibrary|\broom|\bservice|\btests)\(/#) {
            let call = Self.call(manifest[match.range.upperBound...])
            let literals = call.matches(of: #/"([^"]*)"/#).map { String($0.1) }
            guard let name = literals.first, !name.contains("\\") else { continue }
            let list = call.firstMatch(of: #/\[([^\[\]]*)\]/#).map { String($0.1) } ?? ""
            let targets = list.matches(of: #/"([^"]*)"/#).map { String($0.1) }
            switch match.output.1 {
            case "service":
                dependencies["\(name)Service"] = targets
                dependencies[name] = ["\(name)Service", "ServiceSupport", "EventLoop"]
            case "tests": dependencies["\(name)Tests"] = targets + ["TestSupport"]
            default: dependencies[name] = targets
            }
        }
    }

    /// The text of a call up to its closing parenthesis.
    private static func call(_ text: Substring) -> Substring {
        var depth = 1
        for index in text.indices {
            if text[index] == "(" { depth += 1 }
            if text[index] == ")" { depth -= 1 }
            if depth == 0 { return text[..<index] }
        }
        return text
    }

    /// The shortest way from a target to one of `ends`, nil when there is none.
    func way(from start: String, to ends: Set<String>) -> [String]? {
        var ways = [[start]]
        var seen: Set = [start]
        while !ways.isEmpty {
            let way = ways.removeFirst()
            if let last = way.last, ends.contains(last) { return way }
            for next in dependencies[way.last ?? ""] ?? [] where seen.insert(next).inserted {
                ways.append(way + [next])
            }
        }
        return nil
    }

    /// Every way by which a service reaches the simulator.
    var waysOfServicesToTheSimulator: [[String]] {
        let simulator: Set = ["TPU", "FusedMoE", "DeploymentModel", "ServingSimulator", "LoadTesting"]
        let services = ["Gateway", "Attention", "Experts", "Sampler"]
        return (services + services.map { "\($0)Service" }).compactMap { way(from: $0, to: simulator) }
    }
}

/// What may not be reached from where.
struct ArrowTests {
    private static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()

    private static func graph() throws -> PackageGraph {
        PackageGraph(
            manifest: try String(contentsOf: root.appendingPathComponent("Package.swift"), encoding: .utf8))
    }

    @Test func noServiceReachesTheSimulator() throws {
        let graph = try Self.graph()
        for way in graph.waysOfServicesToTheSimulator { Issue.record("\(way.joined(separator: " → "))") }
    }

    /// Loops in memory are the tests' own.
    @Test func nothingThatShipsReachesTheTestingRooms() throws {
        let graph = try Self.graph()
        for target in graph.dependencies.keys.sorted() where !target.hasSuffix("Tests") {
            let way = graph.way(from: target, to: ["EventLoopTesting", "TestSupport"])
            #expect(way == nil || way?.count == 1, "\(way?.joined(separator: " → ") ?? "")")
        }
        #expect(graph.way(from: "RPCTests", to: ["EventLoopTesting"])?.count == 2)
    }

    /// The manifest is read as it is meant: every room is there, and so are known arrows.
    @Test func theManifestsTargetsAreAllFound() throws {
        let graph = try Self.graph()
        let rooms = try FileManager.default.contentsOfDirectory(
            atPath: Self.root.appendingPathComponent("Sources").path)
        for room in rooms where !(room.hasPrefix("C") && room.dropFirst().first?.isUppercase == true) {
            #expect(graph.dependencies[room] != nil, "\(room)")
        }
        #expect(graph.way(from: "Gateway", to: ["CLibuv"]) == ["Gateway", "EventLoop", "CLibuv"])
        #expect(graph.way(from: "Ironling", to: ["TPU"])?.count == 2)
        #expect(graph.way(from: "ServingSimulator", to: ["TPU"]) == ["ServingSimulator", "TPU"])
        #expect(graph.way(from: "GatewayService", to: ["Tokenization"]) == ["GatewayService", "Tokenization"])
        #expect(graph.way(from: "GatewayTests", to: ["GatewayService"])?.count == 2)
    }

    @Test(arguments: [
        ("service(\"Experts\", [\"RPC\", \"TPU\"])", ["ExpertsService", "TPU"]),
        (
            "room(\"Handy\", [\"FusedMoE\"]),\nroom(\"Files\"),\nservice(\n    \"Experts\",\n    [\n        \"Handy\",\n    ])",
            ["ExpertsService", "Handy", "FusedMoE"]
        ),
        (
            ".target(\n    name: \"Odd\", dependencies: [.target(name: \"Far\"), \"LoadTesting\"], path: \"x\"),\n"
                + "service(\"Experts\", [\"Odd\"])", ["ExpertsService", "Odd", "LoadTesting"]
        ),
    ])
    func aWayToTheSimulatorIsFound(manifest: String, way: [String]) {
        let ways = PackageGraph(manifest: manifest).waysOfServicesToTheSimulator
        #expect(ways == [["Experts"] + way, way])
    }

    @Test func servicesApartFromTheSimulatorPass() {
        let graph = PackageGraph(
            manifest: "room(\"TPU\"), room(\"RPC\", [\"EventLoop\"]), service(\"Experts\", [\"RPC\"])")
        #expect(graph.dependencies.count == 4 && graph.waysOfServicesToTheSimulator.isEmpty)
    }

    /// What the linker put together bears it out: the simulator's symbols are in the command, and in no service.
    @Test(arguments: ["ironling", "ironling-gateway", "ironling-attention", "ironling-experts", "ironling-sampler"])
    func onlyTheCommandHoldsTheSimulatorsSymbols(program: String) throws {
        let folder = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath().deletingLastPathComponent()
        let data = try Data(contentsOf: folder.appendingPathComponent(program), options: .alwaysMapped)
        let mangled = ["$s3TPU", "$s8FusedMoE", "$s15DeploymentModel", "$s16ServingSimulator", "$s11LoadTesting"]
        for name in mangled { #expect((data.range(of: Data(name.utf8)) != nil) == (program == "ironling"), "\(name)") }
        #expect(data.range(of: Data("$s14ServiceSupport".utf8)) != nil, "stripped: there is nothing to look for")
    }
}
