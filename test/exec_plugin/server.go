package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// hugeBytes is more than gRPC's own clients take, which is 4 MiB.
const hugeBytes = 5 << 20

// A behaviour is what a test wants of the server. The zero value refuses the
// caller: it has no identity.
type behaviour struct {
	// Identities of whoever calls, the default one first.
	Identities []identity `json:"identities"`
	// Refuse is answered in place of SVIDs.
	Refuse *refusal `json:"refuse"`
	// Fault is one of the faults, or empty.
	Fault string `json:"fault"`
	// ListenAfterMilliseconds is how long nothing listens yet.
	ListenAfterMilliseconds int `json:"listenAfterMilliseconds"`
	// Stale leaves a socket in the meantime on which nobody listens, as an
	// agent that was killed does.
	Stale bool `json:"stale"`
}

type refusal struct {
	Code    codes.Code `json:"code"`
	Message string     `json:"message"`
	// Times is after how many refusals it changes its mind; 0 is never.
	Times int `json:"times"`
}

// What a server does that is none, or a broken one.
const (
	faultHang     = "hang"      // takes the call and never answers
	faultMute     = "mute"      // takes the connection and says nothing at all
	faultNoHTTP2  = "no-http2"  // says something else than HTTP/2
	faultBreakOff = "break-off" // begins an answer, then closes the connection
	faultHangUp   = "hang-up"   // closes the connection when it has been asked
	faultGarbage  = "garbage"   // answers with octets that are no message
	faultHuge     = "huge"      // answers with an SVID of 5 MiB
	faultEmpty    = "empty"     // answers with no SVID, and status OK
)

// A call is what the server has seen of one.
type call struct {
	At             int64      `json:"at"` // milliseconds since the epoch
	Audience       []string   `json:"audience"`
	SpiffeID       string     `json:"spiffeId"`
	SecurityHeader []string   `json:"securityHeader"`
	Code           codes.Code `json:"code"`
}

// runServer is a Workload API, of FetchJWTSVID only.
func runServer(args []string) error {
	flags := flag.NewFlagSet("server", flag.ExitOnError)
	address := flags.String("address", "", "`ADDRESS` to listen on: unix:///PATH or tcp://IP:PORT")
	keyFile := flags.String("key", "", "PKCS #8 PEM `FILE` of the P-256 key that signs")
	keyID := flags.String("key-id", "", "its `KID`")
	issuer := flags.String("issuer", "", "`URL` in the claim iss")
	if err := parseRequired(flags, args); err != nil {
		return err
	}
	signer, err := newSigner(*keyFile, *keyID, *issuer)
	if err != nil {
		return err
	}
	s := &server{address: *address, signer: signer}
	defer s.close()
	return serve(func(wanted behaviour) any {
		calls := s.behave(wanted)
		return map[string]any{"calls": calls}
	})
}

// A server listens anew for each behaviour, so that no connection, call or
// back-off of one test is seen by the next.
type server struct {
	workload.UnimplementedSpiffeWorkloadAPIServer
	address string
	signer  *signer

	mu        sync.Mutex
	behaviour behaviour
	refused   int
	calls     []call
	stop      func()
	conns     *connections
}

// behave ends what there is and begins anew. It returns the calls so far, and
// when it does, either the new behaviour is there or its time has not come.
func (s *server) behave(wanted behaviour) []call {
	s.close()
	s.mu.Lock()
	calls := append([]call{}, s.calls...)
	s.behaviour, s.refused, s.calls = wanted, 0, nil
	s.mu.Unlock()

	if wanted.ListenAfterMilliseconds == 0 {
		s.listen()
		return calls
	}
	if wanted.Stale {
		s.leaveStaleSocket()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	timer := time.AfterFunc(time.Duration(wanted.ListenAfterMilliseconds)*time.Millisecond, s.listen)
	s.stop = func() { timer.Stop() }
	return calls
}

func (s *server) close() {
	s.mu.Lock()
	stop := s.stop
	s.stop = nil
	s.mu.Unlock()
	if stop != nil {
		stop()
	}
}

func (s *server) bind() net.Listener {
	network, address, _ := strings.Cut(s.address, "://")
	if network == "unix" {
		_ = os.Remove(address)
	}
	listener, err := net.Listen(network, address)
	if err != nil {
		fmt.Fprintln(os.Stderr, "exec-plugin:", err)
		os.Exit(1)
	}
	return listener
}

func (s *server) leaveStaleSocket() {
	listener := s.bind()
	if unix, ok := listener.(*net.UnixListener); ok {
		unix.SetUnlinkOnClose(false)
	}
	_ = listener.Close()
}

func (s *server) listen() {
	listener := s.bind()
	conns := &connections{Listener: listener}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns = conns
	switch s.behaviour.Fault {
	case faultMute, faultNoHTTP2, faultHangUp:
		go conns.misbehave(s.behaviour.Fault)
		s.stop = conns.closeAll
	default:
		options := []grpc.ServerOption{grpc.MaxSendMsgSize(2 * hugeBytes)}
		if s.behaviour.Fault == faultGarbage {
			options = append(options, grpc.ForceServerCodec(garbageCodec{}))
		}
		server := grpc.NewServer(options...)
		workload.RegisterSpiffeWorkloadAPIServer(server, s)
		go func() { _ = server.Serve(conns) }()
		s.stop = func() {
			server.Stop()
			// If Serve has not begun yet, it closes the listener when it does,
			// and would take the next one's socket away with it.
			_ = conns.Close()
		}
	}
}

// FetchJWTSVID answers as SPIRE's agent does, unless it is told otherwise.
func (s *server) FetchJWTSVID(ctx context.Context, request *workload.JWTSVIDRequest) (*workload.JWTSVIDResponse, error) {
	headers, _ := metadata.FromIncomingContext(ctx)
	seen := call{
		At:             time.Now().UnixMilli(),
		Audience:       request.Audience,
		SpiffeID:       request.SpiffeId,
		SecurityHeader: headers.Get("workload.spiffe.io"),
	}
	response, err := s.judge(seen)
	seen.Code = status.Code(err)
	s.mu.Lock()
	s.calls = append(s.calls, seen)
	fault := s.behaviour.Fault
	conns := s.conns
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	switch fault {
	case faultHang:
		<-ctx.Done()
		return nil, ctx.Err()
	case faultBreakOff:
		if err := grpc.SendHeader(ctx, metadata.MD{}); err != nil {
			return nil, err
		}
		conns.closeAccepted()
		return nil, ctx.Err()
	case faultEmpty:
		return &workload.JWTSVIDResponse{}, nil
	case faultHuge:
		svid := &workload.JWTSVID{SpiffeId: "spiffe://example.org/huge", Svid: strings.Repeat("a", hugeBytes)}
		return &workload.JWTSVIDResponse{Svids: []*workload.JWTSVID{svid}}, nil
	}
	return response, nil
}

// judge returns the SVIDs of whom they are asked for, or the status that a
// real agent has for the request.
func (s *server) judge(asked call) (*workload.JWTSVIDResponse, error) {
	if len(asked.SecurityHeader) != 1 || asked.SecurityHeader[0] != "true" {
		return nil, status.Error(codes.InvalidArgument, "security header missing from request")
	}
	s.mu.Lock()
	wanted := s.behaviour
	refuse := wanted.Refuse != nil && (wanted.Refuse.Times == 0 || s.refused < wanted.Refuse.Times)
	if refuse {
		s.refused++
	}
	s.mu.Unlock()
	if refuse {
		return nil, status.Error(wanted.Refuse.Code, wanted.Refuse.Message)
	}
	if len(asked.Audience) == 0 {
		return nil, status.Error(codes.InvalidArgument, "audience must be specified")
	}
	if asked.SpiffeID != "" {
		if _, err := spiffeid.FromString(asked.SpiffeID); err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "invalid requested SPIFFE ID: %v", err)
		}
	}
	response := &workload.JWTSVIDResponse{}
	for _, one := range wanted.Identities {
		if asked.SpiffeID != "" && asked.SpiffeID != one.SpiffeID {
			continue
		}
		svid, err := s.signer.svid(one, asked.Audience)
		if err != nil {
			return nil, status.Error(codes.Internal, err.Error())
		}
		response.Svids = append(response.Svids, &workload.JWTSVID{SpiffeId: one.SpiffeID, Svid: svid, Hint: one.Hint})
	}
	if len(response.Svids) == 0 && wanted.Fault == "" {
		return nil, status.Error(codes.PermissionDenied, "no identity issued")
	}
	return response, nil
}
