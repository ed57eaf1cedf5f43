;; A command whose `run` is put in place of `;; RUN`; it leaves 0 for success or 1 for failure. It
;; may call $print and $warn with the length of what is at 4096, $read to read stdin there, which
;; leaves the length, and $exit with 0 or 1.
(component
  (import "wasi:io/error@0.2.3" (instance $error (export "error" (type (sub resource)))))
  (alias export $error "error" (type $io-error))
  (import "wasi:io/streams@0.2.3" (instance $streams
    (alias outer 1 $io-error (type $e))
    (export "error" (type $error (eq $e)))
    (export "input-stream" (type $input-stream (sub resource)))
    (export "output-stream" (type $output-stream (sub resource)))
    (type $se (variant (case "last-operation-failed" (own $error)) (case "closed")))
    (export "stream-error" (type $stream-error (eq $se)))
    (export "[method]input-stream.blocking-read" (func
      (param "self" (borrow $input-stream)) (param "len" u64)
      (result (result (list u8) (error $stream-error)))))
    (export "[method]output-stream.blocking-write-and-flush" (func
      (param "self" (borrow $output-stream)) (param "contents" (list u8))
      (result (result (error $stream-error)))))))
  (alias export $streams "input-stream" (type $input-stream))
  (alias export $streams "output-stream" (type $output-stream))
  (import "wasi:cli/stdin@0.2.3" (instance $stdin
    (alias outer 1 $input-stream (type $is))
    (export "input-stream" (type $input-stream (eq $is)))
    (export "get-stdin" (func (result (own $input-stream))))))
  (import "wasi:cli/stdout@0.2.3" (instance $stdout
    (alias outer 1 $output-stream (type $os))
    (export "output-stream" (type $output-stream (eq $os)))
    (export "get-stdout" (func (result (own $output-stream))))))
  (import "wasi:cli/stderr@0.2.3" (instance $stderr
    (alias outer 1 $output-stream (type $os))
    (export "output-stream" (type $output-stream (eq $os)))
    (export "get-stderr" (func (result (own $output-stream))))))
  (import "wasi:cli/exit@0.2.3" (instance $exit
    (export "exit" (func (param "status" (result))))))

  (core module $memory
    (memory (export "memory") 2)
    (data (i32.const 4096) "hello")
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096)))
  (core instance $memory (instantiate $memory))
  (core func $read (canon lower (func $streams "[method]input-stream.blocking-read")
    (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))
  (core func $write (canon lower (func $streams "[method]output-stream.blocking-write-and-flush")
    (memory (core memory $memory "memory"))))
  (core func $stdin (canon lower (func $stdin "get-stdin")))
  (core func $stdout (canon lower (func $stdout "get-stdout")))
  (core func $stderr (canon lower (func $stderr "get-stderr")))
  (core func $exit (canon lower (func $exit "exit")))

  (core module $main
    (import "memory" "memory" (memory $memory 2))
    (import "host" "read" (func $get (param i32 i64 i32)))
    (import "host" "write" (func $put (param i32 i32 i32 i32)))
    (import "host" "stdin" (func $stdin (result i32)))
    (import "host" "stdout" (func $stdout (result i32)))
    (import "host" "stderr" (func $stderr (result i32)))
    (import "host" "exit" (func $exit (param i32)))
    (func $read (result i32)
      (call $get (call $stdin) (i64.const 4096) (i32.const 0))
      (i32.load (i32.const 8)))
    (func $print (param $len i32)
      (call $put (call $stdout) (i32.const 4096) (local.get $len) (i32.const 0)))
    (func $warn (param $len i32)
      (call $put (call $stderr) (i32.const 4096) (local.get $len) (i32.const 0)))
    (func (export "run") (result i32)
      ;; RUN
    ))
  (core instance $main (instantiate $main
    (with "memory" (instance $memory))
    (with "host" (instance
      (export "read" (func $read))
      (export "write" (func $write))
      (export "stdin" (func $stdin))
      (export "stdout" (func $stdout))
      (export "stderr" (func $stderr))
      (export "exit" (func $exit))))))
  (func $run (result (result)) (canon lift (core func $main "run")))
  (instance $command (export "run" (func $run)))
  (export "wasi:cli/run@0.2.3" (instance $command)))
