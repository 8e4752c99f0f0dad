//! What `--help` prints.

/// The server's flags.
pub(crate) const USAGE: &str = "\
Usage: nats-server [flags]

Flags are written with one dash or two; values follow after a blank or '='.
They win over the configuration file.

Listening
  -a, --addr, --net HOST      address for clients (0.0.0.0)
  -p, --port PORT             port for clients (4222); -1 picks a free one
  -m, --http_port PORT        monitoring over HTTP
  -ms, --https_port PORT      monitoring over HTTPS
      --client_advertise H:P  address that clients are told instead

Identity and files
  -n, --name, --server_name NAME   the server's name
  -c, --config FILE           configuration file
  -t                          check the configuration file and exit
  -P, --pid FILE              write the process id there
      --ports_file_dir DIR    write NAME_PID.ports there, with the ports in use
  -sl, --signal SIGNAL[=PID]  signal a running server: ldm, stop, quit, term, reopen, reload;
                              PID is a number or a file that holds it

JetStream
  -js, --jetstream            streams, consumers, key-value and object stores
  -sd, --store_dir DIR        where they are kept

Log
  -l, --log FILE              write there instead of stderr
  -T, --logtime               begin lines with the time (on)
      --logtime_utc           in UTC
  -D, --debug                 more detail
  -V, --trace                 the protocol of clients
  -VV                         that, and of the system account
  -DV, -DVV                   -D with -V or -VV
      --log_size_limit BYTES  start a new file beyond this size
      --max_traced_msg_len N  bytes of a message in a trace
  -s, --syslog                not supported yet
  -r, --remote_syslog ADDR    not supported yet

Authorization
      --user USER             clients must name this user
      --pass PASSWORD         and this password
      --auth TOKEN            clients must present this token

TLS
      --tls                   require TLS
      --tlscert FILE          the server's certificate
      --tlskey FILE           its private key
      --tlsverify             require certificates of clients too
      --tlscacert FILE        who may have signed those
      --help_tls              about TLS in the configuration file

Cluster
      --cluster, --cluster_listen URL   address for other servers: nats://USER:PASSWORD@HOST:PORT,
                              or without USER and PASSWORD
      --cluster_name NAME     the cluster's name
      --routes URL,URL        other servers, as many as are known
      --cluster_advertise H:P address that other servers are told
      --no_advertise          do not tell clients of other servers
      --connect_retries N     attempts beyond the first few to reach servers that were told of

Other
      --profile PORT          not supported yet
  -h, --help                  this text
  -v, --version               the version
";

/// About TLS.
pub(crate) const USAGE_TLS: &str = "\
TLS is configured by a block of the configuration file:

    tls {
        cert_file: \"server.pem\"       # the server's certificate
        key_file:  \"server-key.pem\"   # its private key
        ca_file:   \"ca.pem\"           # who may sign certificates of clients
        verify:    true               # clients must present one
        timeout:   \"2s\"               # for the handshake
        min_version: \"1.3\"            # 1.2 by default
        handshake_first: true         # TLS before INFO; or \"auto\", or a duration
    }

Files are relative to the working directory. --tls, --tlscert, --tlskey, --tlsverify and --tlscacert set the same.
";
