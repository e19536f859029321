import Testing

extension Rule {
    static let longestFunction = 70

    static let shortFunctions = Rule(name: "no function has more than \(longestFunction) lines") { repository in
        repository.swiftFiles.flatMap { file in
            (file.swift?.declarations ?? []).filter { $0.isFunction && $0.lineCount > longestFunction }.map {
                Finding(path: file.path, line: $0.line, sentence: "\($0.name) has \($0.lineCount) lines")
            }
        }
    }

    /// Rooms in which a write to something that may be gone is a mistake: `entries[id]?.phase = .ended` would do nothing
    /// when the entry is not there, and nobody would hear of it. Add a room when it is clean.
    private static let roomsWithoutChainedWrites: Set = ["StatePools", "Scheduling"]

    static let noChainedWrites = Rule(name: "state machines never write through an optional") { repository in
        repository.productFiles.filter { file in
            let room = Repository.room(of: file.path)
            return roomsWithoutChainedWrites.contains(room) || room.hasSuffix("Core")
        }.flatMap { file in
            (file.swift?.code ?? []).enumerated().compactMap { number, line in
                guard line.contains("?."), line.contains(#/\?\.[\w.\[\]?]+ (?:[-+*/%&|]|&[-+*])?= /#) else {
                    return nil
                }
                return Finding(path: file.path, line: number + 1, sentence: "does nothing when nothing is there")
            }
        }
    }

    /// Classes that tell the compiler nothing of who may touch them. It only ever falls.
    private static let mostUncheckedTypes = 15
    /// Those of them that do not assert their loop. It only ever falls.
    private static let mostUnassertedTypes = 0
    /// Variables that are kept from the compiler one by one. It only ever falls.
    private static let mostUnsafeVariables = 0
    /// Constants that are: pointers to memory that others fill, or what one thread at a time is handed. It only ever falls.
    private static let mostUnsafeConstants = 20

    static let confinement = confinement(
        mostUnchecked: mostUncheckedTypes, mostUnasserted: mostUnassertedTypes, mostVariables: mostUnsafeVariables,
        mostConstants: mostUnsafeConstants)

    fileprivate static func confinement(
        mostUnchecked: Int, mostUnasserted: Int, mostVariables: Int, mostConstants: Int
    ) -> Rule {
        Rule(name: "what is kept from the compiler's checks of threads asserts its loop, and is rare") { repository in
            let unchecked = repository.productFiles.flatMap { file in
                (file.swift?.declarations ?? []).filter { $0.isType && $0.signature.contains("unchecked") }.map {
                    (file, $0)
                }
            }
            let unasserted = unchecked.filter {
                $0.1.bodyWords.isDisjoint(with: ["assertIsolated", "preconditionIsolated"])
            }
            var findings: [Finding] = []
            if unchecked.count > mostUnchecked {
                findings += unchecked.map { file, type in
                    let sentence =
                        "\(type.name) is one of \(unchecked.count) unchecked types, of at most \(mostUnchecked)"
                    return Finding(path: file.path, line: type.line, sentence: sentence)
                }
            }
            if unasserted.count > mostUnasserted {
                findings += unasserted.map { file, type in
                    let sentence =
                        "\(type.name) asserts no loop, as \(unasserted.count) do, of at most \(mostUnasserted)"
                    return Finding(path: file.path, line: type.line, sentence: sentence)
                }
            }
            let unsafe = unsafeStorage(of: repository)
            findings += excess(unsafe.filter(\.isVariable), of: mostVariables, "variables")
            findings += excess(unsafe.filter { !$0.isVariable }, of: mostConstants, "constants")
            return findings
        }
    }

    /// What says `nonisolated(unsafe)`, on one line or on the line before the one that declares it.
    private struct UnsafeStorage {
        let path: String
        let line: Int
        let isVariable: Bool
    }

    private static func unsafeStorage(of repository: Repository) -> [UnsafeStorage] {
        repository.productFiles.flatMap { file in
            let code = file.swift?.code ?? []
            return code.indices.flatMap { index in
                let rest = code[index...].prefix(2).joined(separator: " ")
                return code[index].ranges(of: "nonisolated(unsafe)").map { range in
                    // The text of the line is where the joined text begins, so its positions are those of both.
                    let offset = code[index].distance(from: code[index].startIndex, to: range.upperBound)
                    let word = rest.dropFirst(offset).split { !$0.isLetter }.first { ["let", "var"].contains($0) }
                    return UnsafeStorage(path: file.path, line: index + 1, isVariable: word != "let")
                }
            }
        }
    }

    private static func excess(_ storage: [UnsafeStorage], of most: Int, _ kind: String) -> [Finding] {
        guard storage.count > most else { return [] }
        return storage.map {
            Finding(
                path: $0.path, line: $0.line,
                sentence: "is one of \(storage.count) nonisolated(unsafe) \(kind), of at most \(most)")
        }
    }

    /// Declarations that only tests use, each with its reason.
    private static let usedByTestsOnly: [String: String] = [
        "checkIsolated": "the standard library asks an executor",
        "isIsolatingCurrentContext": "the standard library asks an executor",
        "enqueue": "the standard library hands an executor its jobs",
        "unownedExecutor": "the compiler asks an actor",
        "lastLogits": "the single-process forward is what the services are held against",
        "render": "published prompts are whole texts",
        "finishSimulating": "a test waits for simulated calls with it",
    ]

    /// What tests run the product on.
    private static func mayHaveDeadDeclarations(_ path: String) -> Bool {
        let room = Repository.room(of: path)
        return room.hasSuffix("Testing") && room != "LoadTesting" || path.hasPrefix("Sources/EventLoop/Memory")
    }

    static let noDeadDeclarations = Rule(name: "what is declared is used by the product") { repository in
        var uses: [String: Int] = [:]
        var declared: [String: Int] = [:]
        let files = repository.productFiles
        for file in files {
            for (word, count) in file.swift?.words ?? [:] { uses[word, default: 0] += count }
            for declaration in file.swift?.declarations ?? [] { declared[declaration.name, default: 0] += 1 }
        }
        return files.filter { !mayHaveDeadDeclarations($0.path) }.flatMap { file in
            (file.swift?.declarations ?? []).filter { declaration in
                let name = declaration.name
                return !["init", "subscript", "_"].contains(name) && name.utf8.allSatisfy(SwiftText.isWord)
                    && !declaration.isHidden
                    && !declaration.modifiers.contains("override") && usedByTestsOnly[name] == nil
                    && uses[name, default: 0] <= declared[name, default: 0]
            }.map { Finding(path: file.path, line: $0.line, sentence: "nothing of the product uses \($0.name)") }
        }
    }
}

struct CodeRuleTests {
    @Test func longFunctionsAreFound() {
        let body = String(repeating: "        a += 1\n", count: 69)
        let sample: Repository = .init([
            "Sources/A/A.swift":
                "struct A {\n    func f(\n) {\n\(body)    }\n    func g() {\n\(body.dropFirst(30))    }\n}\n"
        ])
        expect(Rule.shortFunctions, on: sample, finds: ["Sources/A/A.swift:2"])
    }

    @Test func writesThroughAnOptionalAreFoundInStateMachines() {
        let text = "requests[id]?.phase = .ended\nif requests[id]?.phase == .ended { a = b?.c }\nrank?.count += 1\n"
        let sample: Repository = .init([
            "Sources/StatePools/A.swift": text, "Sources/GatewayCore/A.swift": text, "Sources/HTTP/A.swift": text,
        ])
        expect(
            Rule.noChainedWrites, on: sample,
            finds: ["StatePools", "GatewayCore"].flatMap { room in [1, 3].map { "Sources/\(room)/A.swift:\($0)" } })
    }

    @Test func uncheckedTypesThatAssertNothingAreFoundAndTooManyOfThem() {
        let sample: Repository = .init([
            "Sources/A/A.swift": """
            final class A: @unchecked Sendable {
                func f() { loop.assertIsolated() }
            }
            final class B: Closable, @unchecked Sendable {
                // loop.assertIsolated()
            }
            final class C: Sendable {}

            """
        ])
        let rule = Rule.confinement(mostUnchecked: 2, mostUnasserted: 0, mostVariables: 0, mostConstants: 0)
        expect(rule, on: sample, finds: ["Sources/A/A.swift:4"])
        let narrow = Rule.confinement(mostUnchecked: 1, mostUnasserted: 1, mostVariables: 0, mostConstants: 0)
        expect(narrow, on: sample, finds: [1, 4].map { "Sources/A/A.swift:\($0)" })
    }

    @Test func tooManyUnsafeVariablesAndConstantsAreFound() {
        let sample: Repository = .init([
            "Sources/A/A.swift": """
            final class A: Sendable {
                private nonisolated(unsafe) var a = 1
                nonisolated(unsafe) weak var b: A?
                // nonisolated(unsafe) var c = 1
                nonisolated(unsafe) private let d = "nonisolated(unsafe) var"
                nonisolated(unsafe)
                    var e = 1
            }

            """
        ])
        func rule(_ variables: Int, _ constants: Int) -> Rule {
            .confinement(mostUnchecked: 0, mostUnasserted: 0, mostVariables: variables, mostConstants: constants)
        }
        expect(rule(3, 1), on: sample, finds: [])
        expect(rule(2, 1), on: sample, finds: [2, 3, 6].map { "Sources/A/A.swift:\($0)" })
        expect(rule(3, 0), on: sample, finds: ["Sources/A/A.swift:5"])
    }

    @Test func declarationsThatOnlyTestsUseAreFound() {
        let sample: Repository = .init([
            "Sources/A/A.swift": """
            public struct Used {
                /// unused() is not used here.
                public func unused() {}
                private func hidden() {}
                var shown = 1
                static func name() -> String { "\\(shown)" }
            }

            """,
            "Services/B/B.swift": "let text = Used.name()\nlet other = text\n",
            "Tests/ATests/A.swift": "Used().unused()\n",
        ])
        expect(Rule.noDeadDeclarations, on: sample, finds: ["Sources/A/A.swift:3", "Services/B/B.swift:2"])
    }
}
