from bench.scenarios.command import main

main()
