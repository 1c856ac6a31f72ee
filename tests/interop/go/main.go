// Command interop is a client of the Workload API and of the bundle endpoint that nobody in this project wrote: go-spiffe
// does the work, this file only says what to do and prints what came out, one JSON object a line.
package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sort"
	"syscall"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/federation"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

const usage = `interop x509 SOCKET              identities and roots, as go-spiffe verified them
interop watch SOCKET             a line for each change, until SIGTERM
interop jwt SOCKET AUDIENCE [ID] a token, validated here by the bundles and there by the API
interop serve SOCKET             mTLS echo server for any ID of its own trust domain; prints its address
interop dial SOCKET ADDRESS ID   one line through a server that must have this ID
interop bundle URL TRUST_DOMAIN ENDPOINT_ID PEM  fetches and parses the bundle, profile https_spiffe
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	verb := func(name string, count int) bool { return len(args) >= 1 && args[0] == name && len(args) >= count }
	switch {
	case verb("x509", 2):
		return withDeadline(ctx, func(ctx context.Context) error { return showX509(ctx, args[1]) })
	case verb("watch", 2):
		return watch(ctx, args[1])
	case verb("jwt", 3):
		return withDeadline(ctx, func(ctx context.Context) error { return showJWT(ctx, args[1], args[2], args[3:]) })
	case verb("serve", 2):
		return serve(ctx, args[1])
	case verb("dial", 4):
		return withDeadline(ctx, func(ctx context.Context) error { return dial(ctx, args[1], args[2], args[3]) })
	case verb("bundle", 5):
		return withDeadline(ctx, func(ctx context.Context) error { return showBundle(ctx, args[1:5]) })
	}
	fmt.Fprint(os.Stderr, usage)
	os.Exit(64)
	return nil
}

func withDeadline(ctx context.Context, work func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return work(ctx)
}

func at(socket string) workloadapi.ClientOption { return workloadapi.WithAddr("unix://" + socket) }

type identity struct {
	ID     string `json:"id"`
	Serial string `json:"serial"`
	Hint   string `json:"hint"`
	Chain  int    `json:"chain"`
}

type state struct {
	Identities []identity          `json:"identities"`
	Roots      map[string][]string `json:"roots"`
}

func describe(update *workloadapi.X509Context) state {
	described := state{Roots: map[string][]string{}}
	for _, svid := range update.SVIDs {
		serial := fmt.Sprintf("%x", svid.Certificates[0].SerialNumber)
		described.Identities = append(described.Identities, identity{svid.ID.String(), serial, svid.Hint, len(svid.Certificates)})
	}
	for _, bundle := range update.Bundles.Bundles() {
		described.Roots[bundle.TrustDomain().Name()] = hashes(bundle.X509Authorities())
	}
	return described
}

func hashes(certificates []*x509.Certificate) []string {
	all := []string{}
	for _, certificate := range certificates {
		sum := sha256.Sum256(certificate.Raw)
		all = append(all, hex.EncodeToString(sum[:]))
	}
	sort.Strings(all)
	return all
}

func show(value any) error { return json.NewEncoder(os.Stdout).Encode(value) }

func showX509(ctx context.Context, socket string) error {
	update, err := workloadapi.FetchX509Context(ctx, at(socket))
	if err != nil {
		return err
	}
	return show(describe(update))
}

type watcher struct{}

func (watcher) OnX509ContextUpdate(update *workloadapi.X509Context) { _ = show(describe(update)) }
func (watcher) OnX509ContextWatchError(err error)                  { _ = show(map[string]string{"error": err.Error()}) }

func watch(ctx context.Context, socket string) error {
	if err := workloadapi.WatchX509Context(ctx, watcher{}, at(socket)); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

func showJWT(ctx context.Context, socket, audience string, id []string) error {
	client, err := workloadapi.New(ctx, at(socket))
	if err != nil {
		return err
	}
	defer client.Close()
	params := jwtsvid.Params{Audience: audience}
	if len(id) > 0 {
		params.Subject = spiffeid.RequireFromString(id[0])
	}
	svid, err := client.FetchJWTSVID(ctx, params)
	if err != nil {
		return err
	}
	bundles, err := client.FetchJWTBundles(ctx)
	if err != nil {
		return err
	}
	here, err := jwtsvid.ParseAndValidate(svid.Marshal(), bundles, []string{audience})
	if err != nil {
		return fmt.Errorf("validated here: %w", err)
	}
	there, err := client.ValidateJWTSVID(ctx, svid.Marshal(), audience)
	if err != nil {
		return fmt.Errorf("validated there: %w", err)
	}
	return show(map[string]any{"id": here.ID.String(), "there": there.ID.String(), "audience": here.Audience, "claims": here.Claims})
}

func serve(ctx context.Context, socket string) error {
	source, err := workloadapi.NewX509Source(ctx, workloadapi.WithClientOptions(at(socket)))
	if err != nil {
		return err
	}
	defer source.Close()
	own, err := source.GetX509SVID()
	if err != nil {
		return err
	}
	anybody := tlsconfig.AuthorizeMemberOf(own.ID.TrustDomain())
	mode := spiffetls.MTLSServerWithSource(anybody, source)
	listener, err := spiffetls.ListenWithMode(ctx, "tcp", "127.0.0.1:0", mode)
	if err != nil {
		return err
	}
	defer listener.Close()
	go func() { <-ctx.Done(); listener.Close() }()
	if err := show(map[string]string{"address": listener.Addr().String()}); err != nil {
		return err
	}
	for {
		connection, err := listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		go func() { defer connection.Close(); _, _ = io.Copy(connection, connection) }()
	}
}

func dial(ctx context.Context, socket, address, id string) error {
	source, err := workloadapi.NewX509Source(ctx, workloadapi.WithClientOptions(at(socket)))
	if err != nil {
		return err
	}
	defer source.Close()
	expected, err := spiffeid.FromString(id)
	if err != nil {
		return err
	}
	mode := spiffetls.MTLSClientWithSource(tlsconfig.AuthorizeID(expected), source)
	connection, err := spiffetls.DialWithMode(ctx, "tcp", address, mode)
	if err != nil {
		return err
	}
	defer connection.Close()
	if _, err := fmt.Fprintln(connection, "hello"); err != nil {
		return err
	}
	answer, err := bufio.NewReader(connection).ReadString('\n')
	if err != nil {
		return err
	}
	peer := connection.(interface{ ConnectionState() tls.ConnectionState }).ConnectionState().PeerCertificates[0]
	return show(map[string]string{"answer": answer, "serial": fmt.Sprintf("%x", peer.SerialNumber)})
}

func showBundle(ctx context.Context, args []string) error {
	domain, err := spiffeid.TrustDomainFromString(args[1])
	if err != nil {
		return err
	}
	endpoint, err := spiffeid.FromString(args[2])
	if err != nil {
		return err
	}
	roots, err := x509bundle.Load(domain, args[3])
	if err != nil {
		return err
	}
	var bundle *spiffebundle.Bundle
	if bundle, err = federation.FetchBundle(ctx, domain, args[0], federation.WithSPIFFEAuth(roots, endpoint)); err != nil {
		return err
	}
	sequence, _ := bundle.SequenceNumber()
	hint, _ := bundle.RefreshHint()
	keys := []string{}
	for kid := range bundle.JWTAuthorities() {
		keys = append(keys, kid)
	}
	sort.Strings(keys)
	return show(map[string]any{
		"roots": hashes(bundle.X509Authorities()), "keys": keys, "sequence": sequence, "refresh_hint": hint.Seconds(),
	})
}
