// The go-spiffe client of the interoperability suite; ../README.md has the contract of all clients.
//
// Start at main. TLS is left wholly to the library's spiffetls package.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

const (
	// Long enough for a first SVID while the machine is busy; a peer that hangs is an error.
	startTimeout = 30 * time.Second
	peerTimeout  = 10 * time.Second

	exitFailed  = 1
	exitUsage   = 2
	exitRefused = 3
)

// errRefused marks that one of the two sides would not talk to the other.
var errRefused = errors.New("refused")

type options struct {
	socket    string
	rotations int
	port      int
	peer      string
	audience  string
	other     string
}

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: client fetch|serve|dial|jwt --socket unix:///PATH ...")
		os.Exit(exitUsage)
	}
	var o options
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	flags.StringVar(&o.socket, "socket", "", "address of the Workload API")
	flags.IntVar(&o.rotations, "rotations", 0, "rotations to wait for after the first SVID")
	flags.IntVar(&o.port, "port", 0, "TCP port on loopback")
	flags.StringVar(&o.peer, "peer", "", "the one SPIFFE ID to talk to")
	flags.StringVar(&o.audience, "audience", "", "a service to fetch a token for")
	flags.StringVar(&o.other, "other", "", "another service")
	_ = flags.Parse(os.Args[2:])

	commands := map[string]func(context.Context, options) error{
		"fetch": fetch, "serve": serve, "dial": dial, "jwt": jwt, "wit": wit,
	}
	command, known := commands[os.Args[1]]
	if !known {
		fmt.Fprintln(os.Stderr, "unknown command", os.Args[1])
		os.Exit(exitUsage)
	}
	switch err := command(context.Background(), o); {
	case err == nil:
	case errors.Is(err, errRefused):
		emit(map[string]any{"event": "refused", "detail": err.Error()})
		os.Exit(exitRefused)
	default:
		emit(map[string]any{"event": "error", "detail": err.Error()})
		os.Exit(exitFailed)
	}
}

func emit(event map[string]any) {
	_ = json.NewEncoder(os.Stdout).Encode(event)
}

// watcher reports every update and closes done after enough rotations, or fails on the first bad SVID.
type watcher struct {
	wanted int
	seen   map[string]bool
	result chan error
}

func (w *watcher) OnX509ContextUpdate(update *workloadapi.X509Context) {
	svid := update.DefaultSVID()
	id, _, err := x509svid.Verify(svid.Certificates, update.Bundles)
	if err == nil && id != svid.ID {
		err = fmt.Errorf("certificate is for %s, the SVID says %s", id, svid.ID)
	}
	if err != nil {
		w.finish(err)
		return
	}
	leaf := svid.Certificates[0]
	serial := leaf.SerialNumber.Text(16)
	emit(map[string]any{
		"event": "svid", "spiffe_id": svid.ID.String(), "serial": serial, "not_after": leaf.NotAfter.Unix(),
	})
	w.seen[serial] = true
	if len(w.seen) >= w.wanted {
		w.finish(nil)
	}
}

func (w *watcher) OnX509ContextWatchError(err error) {
	fmt.Fprintln(os.Stderr, "watch:", err)
}

func (w *watcher) finish(err error) {
	select {
	case w.result <- err:
	default:
	}
}

func fetch(ctx context.Context, o options) error {
	client, err := workloadapi.New(ctx, workloadapi.WithAddr(o.socket))
	if err != nil {
		return err
	}
	defer client.Close()
	w := &watcher{wanted: o.rotations + 1, seen: map[string]bool{}, result: make(chan error, 1)}
	ended := make(chan error, 1)
	go func() { ended <- client.WatchX509Context(ctx, w) }()
	select {
	case err = <-w.result:
		return err
	case err = <-ended:
		return fmt.Errorf("the watch ended: %w", err)
	}
}

// identity opens the library's self-renewing source and parses the peer that is to be trusted.
func identity(ctx context.Context, o options) (*workloadapi.X509Source, spiffeid.ID, error) {
	peer, err := spiffeid.FromString(o.peer)
	if err != nil {
		return nil, spiffeid.ID{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	source, err := workloadapi.NewX509Source(ctx, workloadapi.WithClientOptions(workloadapi.WithAddr(o.socket)))
	return source, peer, err
}

func serve(ctx context.Context, o options) error {
	source, peer, err := identity(ctx, o)
	if err != nil {
		return err
	}
	defer source.Close()
	mode := spiffetls.MTLSServerWithSource(tlsconfig.AuthorizeID(peer), source)
	listener, err := spiffetls.ListenWithMode(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", o.port), mode)
	if err != nil {
		return err
	}
	defer listener.Close()
	emit(map[string]any{"event": "listening", "port": listener.Addr().(*net.TCPAddr).Port})
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		if err := echo(conn); err != nil {
			emit(map[string]any{"event": "refused", "detail": err.Error()})
		}
	}
}

// echo answers one line; the handshake happens at the first read.
func echo(conn net.Conn) error {
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(peerTimeout)); err != nil {
		return err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return err
	}
	if _, err := conn.Write([]byte(line)); err != nil {
		return err
	}
	peer, err := spiffetls.PeerIDFromConn(conn)
	if err != nil {
		return err
	}
	emit(map[string]any{"event": "served", "peer": peer.String()})
	return nil
}

func dial(ctx context.Context, o options) error {
	source, peer, err := identity(ctx, o)
	if err != nil {
		return err
	}
	defer source.Close()
	ctx, cancel := context.WithTimeout(ctx, peerTimeout)
	defer cancel()
	mode := spiffetls.MTLSClientWithSource(tlsconfig.AuthorizeID(peer), source)
	conn, err := spiffetls.DialWithMode(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", o.port), mode)
	if err != nil {
		var transport *net.OpError
		if errors.As(err, &transport) && transport.Op == "dial" {
			return err
		}
		return fmt.Errorf("%w: %w", errRefused, err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(peerTimeout)); err != nil {
		return err
	}
	// In TLS 1.3 a server's refusal reaches the client only when it uses the connection.
	const sent = "hello from go\n"
	if _, err := conn.Write([]byte(sent)); err != nil {
		return fmt.Errorf("%w: %w", errRefused, err)
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errRefused, err)
	}
	if line != sent {
		return fmt.Errorf("sent %q, came back %q", sent, line)
	}
	id, err := spiffetls.PeerIDFromConn(conn)
	if err != nil {
		return err
	}
	emit(map[string]any{"event": "echo", "peer": id.String()})
	return nil
}
