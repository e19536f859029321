// swift-tools-version: 6.2
import Foundation
import PackageDescription

/// The instruction set the kernels are compiled for. `IRONLING_TARGET_CPU` overrides it (images that must run
/// elsewhere set it); otherwise x86-64 takes the widest level this machine has and arm64 takes the baseline.
/// Results are bit-identical at every level: lanes and reduction order are fixed in the source.
func targetCPU() -> String? {
    if let named = Context.environment["IRONLING_TARGET_CPU"], !named.isEmpty { return named }
    #if arch(x86_64)
        let flags = (try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8)) ?? ""
        let level4 = ["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"]
        return level4.allSatisfy { flags.contains(" \($0)") } ? "x86-64-v4" : "x86-64-v3"
    #else
        return nil
    #endif
}

let strict: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
]

/// Rooms whose inner loops are arithmetic on buffers that were checked at the door.
let kernels: [SwiftSetting] =
    strict + (targetCPU() == "x86-64-v4" ? [.define("WIDE_REGISTERS")] : []) + [
        .unsafeFlags(
            ["-Ounchecked"] + (targetCPU().map { ["-Xcc", "-march=\($0)"] } ?? []))
    ]

func room(_ name: String, _ dependencies: [Target.Dependency] = [], settings: [SwiftSetting] = strict) -> Target {
    .target(name: name, dependencies: dependencies, path: "Sources/\(name)", swiftSettings: settings)
}

func service(_ name: String, _ dependencies: [Target.Dependency], resources: [Resource] = []) -> [Target] {
    [
        .target(
            name: "\(name)Service", dependencies: dependencies, path: "Services/\(name)/Library",
            resources: resources, swiftSettings: strict),
        .executableTarget(
            name: name, dependencies: [.target(name: "\(name)Service"), "ServiceSupport", "EventLoop"],
            path: "Services/\(name)/Main", swiftSettings: strict),
    ]
}

func tests(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .testTarget(
        name: "\(name)Tests", dependencies: dependencies + ["TestSupport"], path: "Tests/\(name)Tests",
        swiftSettings: strict)
}

let systemLibraries: [Target] = [
    .systemLibrary(name: "CSIMD", path: "Sources/CSIMD"),
    .systemLibrary(name: "CLibuv", pkgConfig: "libuv", providers: [.apt(["libuv1-dev"])]),
    .systemLibrary(name: "CPCRE2", pkgConfig: "libpcre2-8", providers: [.apt(["libpcre2-dev"])]),
    .systemLibrary(name: "CHTTPParser", providers: [.apt(["libhttp-parser-dev"])]),
    .systemLibrary(name: "CCrypto", pkgConfig: "libcrypto", providers: [.apt(["libssl-dev"])]),
    .systemLibrary(name: "CXXHash", providers: [.apt(["libxxhash-dev"])]),
    .systemLibrary(name: "CLibEdit", providers: [.apt(["libedit-dev"])]),
    .systemLibrary(name: "CISAL", pkgConfig: "libisal", providers: [.apt(["libisal-dev"])]),
]

let rooms: [Target] = [
    .target(
        name: "WireProtocol", dependencies: ["Serving", "ContentIdentity", "CISAL"], path: "Protocol/Swift",
        swiftSettings: strict),
    room("Serving"),
    room("ContentIdentity", ["CXXHash"], settings: kernels),
    room("EventLoop", ["CLibuv"]),
    room("EventLoopTesting", ["EventLoop", "RandomNumbers"]),
    room("RandomNumbers"),
    room("RPC", ["WireProtocol", "ContentIdentity", "EventLoop", "Observability", "CCrypto"]),
    room("HTTP", ["EventLoop", "JSON", "CHTTPParser"]),
    room("Numerics", ["CSIMD"], settings: kernels),
    room("Files"),
    room("JSON"),
    room("Plots", ["JSON"]),
    room("Checkpoint", ["Numerics", "ContentIdentity", "JSON", "Files"]),
    room("Tokenization", ["CPCRE2", "JSON", "Files"]),
    room("LoadTesting", ["RandomNumbers", "Plots"]),
    room("HybridModel", ["Numerics", "Checkpoint"], settings: kernels),
    .target(
        name: "FusedMoE", dependencies: ["TPU", "Numerics"], path: "Sources/FusedMoE",
        exclude: ["README.md", "moe.svg", "timeline.svg"],
        resources: [.embedInCode("Validation/published.json"), .embedInCode("Validation/predictions.json")],
        swiftSettings: kernels),
    room("StatePools"),
    room("Scheduling", ["Serving", "StatePools"]),
    room("EngineCore", ["Serving", "Scheduling", "StatePools"]),
    room("GatewayCore", ["Serving", "Scheduling", "WireProtocol"]),
    room("Sampling", ["Serving", "Numerics"], settings: kernels),
    room("Observability", ["JSON", "Plots"]),
    .target(
        name: "TPU", dependencies: ["Plots"], path: "Sources/TPU", exclude: ["README.md"],
        resources: [.embedInCode("Calibration/parameters.json")], swiftSettings: kernels),
    .target(
        name: "DeploymentModel", dependencies: ["TPU", "FusedMoE", "StatePools", "Checkpoint"],
        path: "Sources/DeploymentModel", exclude: ["README.md", "serving.svg"],
        resources: [.embedInCode("Parameters/parameters.json"), .embedInCode("Validation/predictions.json")],
        swiftSettings: strict),
    .target(
        name: "ServingSimulator",
        dependencies: [
            "Serving", "Scheduling", "StatePools", "DeploymentModel", "LoadTesting", "FusedMoE", "TPU", "Plots",
        ],
        path: "Sources/ServingSimulator", exclude: ["README.md"], swiftSettings: strict),
    room("ServiceSupport", ["EventLoop", "RPC", "HTTP", "WireProtocol", "Checkpoint", "Observability"]),
]

let services: [Target] =
    service(
        "Gateway",
        [
            "HTTP", "RPC", "ContentIdentity", "WireProtocol", "EventLoop", "Tokenization", "Checkpoint",
            "ServiceSupport",
            "Observability", "Scheduling", "Serving", "GatewayCore", "CCrypto", "JSON", "Files",
        ], resources: [.embedInCode("openapi.json")])
    + service(
        "Attention",
        [
            "RPC", "ContentIdentity", "WireProtocol", "EventLoop", "HybridModel", "Checkpoint", "Numerics",
            "StatePools", "Scheduling", "Serving", "EngineCore",
            "ServiceSupport", "Observability",
        ])
    + service(
        "Experts",
        [
            "RPC", "ContentIdentity", "WireProtocol", "EventLoop", "HybridModel", "Checkpoint", "Numerics",
            "ServiceSupport", "Observability",
        ])
    + service(
        "Sampler",
        [
            "RPC", "ContentIdentity", "WireProtocol", "Serving", "EventLoop", "HybridModel", "Checkpoint", "Numerics",
            "Sampling", "ServiceSupport", "Observability",
        ])
    + [
        .target(
            name: "Emulation",
            dependencies: [
                "GatewayService", "AttentionService", "ExpertsService", "SamplerService", "HybridModel", "RPC",
                "WireProtocol", "EventLoop", "ServiceSupport", "Observability", "ServingSimulator", "DeploymentModel",
                "Scheduling", "Serving", "FusedMoE", "TPU", "Checkpoint", "Numerics", "Files",
            ],
            path: "Services/Emulation", swiftSettings: strict),
        .executableTarget(
            name: "Ironling",
            dependencies: [
                "GatewayService", "AttentionService", "ExpertsService", "SamplerService", "RPC", "WireProtocol",
                "EventLoop", "HTTP", "HybridModel", "Checkpoint", "Numerics", "Sampling", "Tokenization", "StatePools",
                "Scheduling", "Serving", "ServiceSupport", "Observability", "FusedMoE", "TPU", "LoadTesting",
                "DeploymentModel",
                "ServingSimulator", "Emulation", "JSON", "Plots", "Files", "CLibEdit",
            ],
            path: "Services/Ironling", exclude: ["trace.svg"], swiftSettings: strict),
    ]

let benchmarks: [Target] = [
    .executableTarget(
        name: "LibuvPingPong", dependencies: ["CLibuv"], path: "Tests/Benchmarks/LibuvPingPong",
        cSettings: [.unsafeFlags(["-O2"])]),
    .executableTarget(
        name: "Bench",
        dependencies: [
            "RPC", "WireProtocol", "Serving", "EventLoop", "HybridModel", "Checkpoint", "Numerics", "Sampling",
            "ServiceSupport", "GatewayService", "GatewayCore", "Scheduling", "HTTP", "FusedMoE", "TPU", "RandomNumbers",
            "JSON",
        ],
        path: "Tests/Benchmarks/Bench", swiftSettings: kernels),
]

let testTargets: [Target] = [
    .target(
        name: "TestSupport", dependencies: ["DeploymentModel", "TPU", "RandomNumbers"], path: "Tests/Support",
        swiftSettings: strict),
    tests("WireProtocol", ["WireProtocol", "Serving", "ContentIdentity"]),
    tests("EventLoop", ["EventLoop", "EventLoopTesting"]),
    tests(
        "RPC",
        [
            "RPC", "WireProtocol", "ContentIdentity", "EventLoop", "EventLoopTesting", "Observability", "CCrypto",
        ]),
    tests("HTTP", ["HTTP", "EventLoop", "EventLoopTesting"]),
    tests("Numerics", ["Numerics"]),
    tests("Files", ["Files"]),
    tests("JSON", ["JSON"]),
    tests("Plots", ["Plots"]),
    tests("ContentIdentity", ["ContentIdentity"]),
    tests("Checkpoint", ["Checkpoint", "Numerics", "ContentIdentity", "JSON"]),
    tests("Tokenization", ["Tokenization", "JSON"]),
    tests("LoadTesting", ["LoadTesting"]),
    tests("RandomNumbers", ["RandomNumbers"]),
    tests("HybridModel", ["HybridModel", "Checkpoint", "Numerics"]),
    tests("FusedMoE", ["FusedMoE", "TPU", "Numerics", "Checkpoint"]),
    tests("StatePools", ["StatePools"]),
    tests("Scheduling", ["Scheduling", "Serving", "StatePools"]),
    tests("EngineCore", ["EngineCore", "Serving", "Scheduling", "StatePools"]),
    tests("GatewayCore", ["GatewayCore", "Serving", "Scheduling", "WireProtocol", "Tokenization"]),
    tests("ServingSimulator", ["ServingSimulator", "DeploymentModel", "Scheduling", "StatePools", "LoadTesting"]),
    tests("Emulation", ["Emulation", "DeploymentModel", "Checkpoint", "EventLoop", "EventLoopTesting"]),
    tests("Sampling", ["Sampling", "Serving", "Numerics"]),
    tests("Observability", ["Observability"]),
    tests("TPU", ["TPU"]),
    tests("DeploymentModel", ["DeploymentModel", "TPU", "FusedMoE", "StatePools", "Checkpoint"]),
    tests(
        "Gateway",
        [
            "GatewayService", "GatewayCore", "Scheduling", "WireProtocol", "Serving", "Tokenization", "Observability",
            "JSON",
        ]),
    tests("Tidy", ["Ironling", "Gateway", "Attention", "Experts", "Sampler"]),
    tests(
        "Service",
        [
            "WireProtocol", "Serving", "RPC", "EventLoop", "EventLoopTesting", "HTTP", "Checkpoint", "Numerics",
            "Ironling", "Gateway",
            "Attention",
            "Experts", "Sampler", "GatewayService", "AttentionService", "ExpertsService", "SamplerService",
            "HybridModel", "Sampling", "Scheduling", "ServiceSupport", "Tokenization", "Emulation", "ServingSimulator",
            "DeploymentModel", "LoadTesting", "ContentIdentity", "JSON",
        ]),
]

let package = Package(
    name: "ironling",
    products: [
        .executable(name: "ironling", targets: ["Ironling"]),
        .executable(name: "ironling-gateway", targets: ["Gateway"]),
        .executable(name: "ironling-attention", targets: ["Attention"]),
        .executable(name: "ironling-experts", targets: ["Experts"]),
        .executable(name: "ironling-sampler", targets: ["Sampler"]),
        .executable(name: "ironling-bench", targets: ["Bench"]),
        .executable(name: "libuv-ping-pong", targets: ["LibuvPingPong"]),
    ],
    targets: systemLibraries + rooms + services + benchmarks + testTargets
)
