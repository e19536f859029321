import Testing

extension Rule {
    /// What the table of the rooms allows; nil is anything.
    private static func arrows(_ table: String) -> [String: Set<String>?] {
        let modules = [
            "libuv": "CLibuv", "ISA-L": "CISAL", "libcrypto": "CCrypto", "http-parser": "CHTTPParser",
            "PCRE2": "CPCRE2", "XXHash": "CXXHash", "libedit": "CLibEdit",
        ]
        var arrows: [String: Set<String>?] = [:]
        for row in MarkdownTable.rows(of: table, under: "The rooms") where row.count == 3 {
            let rooms = MarkdownTable.quoted(row[0]).filter { $0.contains("/") }
            let names = rooms.map {
                $0 == "Protocol/Swift" ? "WireProtocol" : String($0.split(separator: "/").last ?? "")
            }
            let imports = row[2].split(separator: ",").map { name -> String in
                let name = String(name.drop { $0 == " " }.reversed().drop { $0 == " " }.reversed())
                return modules[name] ?? name
            }
            for room in rooms {
                let isAnything = imports.contains { $0.hasPrefix("any") }
                arrows[room] = .some(isAnything ? nil : Set(imports.filter { $0 != "–" }).union(names))
            }
        }
        return arrows
    }

    static let imports = Rule(name: "rooms import only what the table of CONTRIBUTING.md allows") { repository in
        let arrows = arrows(repository.file("CONTRIBUTING.md")?.text ?? "")
        let system: Set = ["Dispatch", "Foundation", "Glibc", "Synchronization"]
        return repository.productFiles.filter { !$0.path.hasPrefix("Services/") }.flatMap { file -> [Finding] in
            let room = file.path.split(separator: "/").prefix(2).joined(separator: "/")
            guard let row = arrows[room] else {
                return [Finding(path: file.path, line: 0, sentence: "\(room) is not in the table of rooms")]
            }
            guard let allowed = row else { return [] }
            return file.lines.enumerated().compactMap { number, line in
                guard line.contains("import "),
                    let match = line.prefixMatch(of: #/(?:@\w+ )?import (?:struct |class |func |enum )?(\w+)/#)
                else { return nil }
                let module = String(match.1)
                guard !allowed.contains(module), !system.contains(module) else { return nil }
                return Finding(path: file.path, line: number + 1, sentence: "\(room) may not import \(module)")
            }
        }
    }
}

struct ImportRuleTests {
    @Test func importsBesideTheTableAreFoundAndRoomsBesideIt() {
        let sample: Repository = .init([
            "CONTRIBUTING.md": """
            ## The rooms

            | room | holds | imports |
            |---|---|---|
            | `Sources/A` | one | B, libuv |
            | `Sources/B` | two | – |

            """,
            "Sources/A/A.swift": "import B\nimport CLibuv\nimport Foundation\nimport C\n",
            "Sources/B/B.swift": "import A\n",
            "Sources/C/C.swift": "let c = 1\n",
        ])
        expect(
            Rule.imports, on: sample, finds: ["Sources/A/A.swift:4", "Sources/B/B.swift:1", "Sources/C/C.swift:0"])
    }
}
