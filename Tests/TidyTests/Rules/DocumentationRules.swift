import Testing

extension Rule {
    static let statedErrors = Rule(name: "public throwing functions say what they throw") { repository in
        repository.productFiles.flatMap { file in
            (file.swift?.declarations ?? []).filter { declaration in
                declaration.isFunction && declaration.isPublic && declaration.canThrow
                    && !declaration.documentation.contains("hrows")
            }.map { Finding(path: file.path, line: $0.line, sentence: "\($0.name) does not say what it throws") }
        }
    }

    static let statedShapes = Rule(name: "functions with pointers give shapes") { repository in
        repository.productFiles.flatMap { file in
            (file.swift?.declarations ?? []).filter { declaration in
                declaration.isFunction && declaration.isSeenOutsideItsModule && declaration.hasPointers
                    && !declaration.documentation.contains("[")
            }.map { Finding(path: file.path, line: $0.line, sentence: "\($0.name) gives no shapes") }
        }
    }

    static let sourcesOfKernels = Rule(name: "docs/kernels.md names every kernel with its source") { repository in
        let rows = MarkdownTable.rows(of: repository.file("docs/kernels.md")?.text ?? "", under: "On processors")
        let named = Set(rows.filter { $0.count == 3 && !$0[2].isEmpty }.flatMap { MarkdownTable.quoted($0[0]) })
        let kernels = repository.productFiles.filter { Repository.room(of: $0.path) == "Numerics" }
        return kernels.flatMap { file in
            (file.swift?.declarations ?? []).filter { declaration in
                declaration.keyword == "func" && declaration.isPublic && declaration.modifiers.contains("static")
                    && declaration.hasPointers && !named.contains(declaration.name)
            }.map { Finding(path: file.path, line: $0.line, sentence: "docs/kernels.md has no source of \($0.name)") }
        }
    }
}

extension Declaration {
    /// Whether it takes or gives memory whose size does not come with it.
    fileprivate var hasPointers: Bool {
        signature.contains { $0.hasPrefix("Unsafe") && $0.hasSuffix("Pointer") && !$0.contains("Buffer") }
    }
}

struct DocumentationRuleTests {
    @Test func errorsThatNobodyStatesAreFound() {
        let sample: Repository = .init([
            "Sources/A/A.swift": """
            /// Reads a file.
            public func read(_ body: () throws -> Void) throws(AError) -> Int { 1 }
            /// Reads a file.
            ///
            /// - Throws: `AError` when it is not there.
            @discardableResult
            public func state() throws(AError) -> Int { 1 }
            /// Calls `body`.
            public func call(_ body: () throws -> Void) -> Int { 1 }
            func own() throws {}

            """
        ])
        expect(Rule.statedErrors, on: sample, finds: ["Sources/A/A.swift:2"])
    }

    @Test func pointersWithoutShapesAreFound() {
        let sample: Repository = .init([
            "Sources/A/A.swift": """
            /// The sum.
            public func sum(_ x: UnsafePointer<Float>, _ count: Int) -> Float { 0 }
            /// The sum of x [count].
            public func sum2(_ x: UnsafePointer<Float>, _ count: Int) -> Float { 0 }
            /// The sum.
            public func sum3(_ x: UnsafeBufferPointer<Float>) -> Float { 0 }
            /// The memory.
            package func memory() -> UnsafeMutableRawPointer { other }

            """
        ])
        expect(Rule.statedShapes, on: sample, finds: ["Sources/A/A.swift:2", "Sources/A/A.swift:8"])
    }

    @Test func kernelsWithoutASourceAreFound() {
        let sample: Repository = .init([
            "docs/kernels.md":
                "## On processors\n\n| kernel | computes | source |\n|---|---|---|\n| `sum` | x | ours |\n",
            "Sources/Numerics/A.swift": """
            public static func sum(_ x: UnsafePointer<Float>) {}
            public static func product(_ x: UnsafePointer<Float>) {}

            """,
        ])
        expect(Rule.sourcesOfKernels, on: sample, finds: ["Sources/Numerics/A.swift:2"])
    }
}
