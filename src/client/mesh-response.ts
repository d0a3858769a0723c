/** Where a Response came from, which one that is made cannot say of itself. */
export interface Origin {
  readonly url: string;
  readonly redirected: boolean;
}

type Body = ReadableStream | Uint8Array | null;
type MeshResponseClass = new (body: Body, init: ResponseInit, origin: Origin) => Response;

let made: MeshResponseClass | undefined;

/**
 * The class of the Responses that are given. Made with the first of them: to touch the global Response makes Node load
 * its fetch, and register a dispatcher for it.
 */
export function meshResponseClass(): MeshResponseClass {
  made ??= define();
  return made;
}

function define(): MeshResponseClass {
  // Its types do not say what is an accessor and what a method, which a class that replaces them has to know.
  const Base = Response as unknown as new (body: Body, init: ResponseInit) => object;
  const spare = new SpareBody();
  const utf8 = new TextDecoder();

  /**
   * A Response as if it had been fetched. Bytes that are here as a whole are read without the stream that a Response makes
   * of them at once, and which costs more than all else about it: only who asks for more than their text has it made.
   */
  class MeshResponse extends Base {
    readonly #init: ResponseInit;
    readonly #origin: Origin;
    readonly #bytes: Uint8Array | undefined;
    #read = false;
    /** Has the body, once it is anything but bytes that nobody has looked at. */
    #ordinary: Response | undefined;

    constructor(body: Body, init: ResponseInit, origin: Origin) {
      super(body === null ? null : spare.stream, init);
      this.#init = init;
      this.#origin = origin;
      this.#bytes = body instanceof Uint8Array ? body : undefined;
      this.#ordinary = body instanceof Uint8Array ? undefined : new Response(body, init);
    }

    get url(): string {
      return this.#origin.url;
    }

    get redirected(): boolean {
      return this.#origin.redirected;
    }

    get type(): Response['type'] {
      return 'basic';
    }

    get body(): Response['body'] {
      return this.#asOrdinary().body;
    }

    get bodyUsed(): boolean {
      return this.#ordinary?.bodyUsed ?? this.#read;
    }

    async json(): Promise<unknown> {
      return this.#ordinary === undefined ? JSON.parse(this.#decode()) : this.#ordinary.json();
    }

    async text(): Promise<string> {
      return this.#ordinary === undefined ? this.#decode() : this.#ordinary.text();
    }

    async arrayBuffer(): Promise<ArrayBuffer> {
      return this.#asOrdinary().arrayBuffer();
    }

    async bytes(): Promise<Uint8Array<ArrayBuffer>> {
      return new Uint8Array(await this.arrayBuffer());
    }

    async blob(): Promise<Blob> {
      return this.#asOrdinary().blob();
    }

    async formData(): Promise<FormData> {
      return this.#asOrdinary().formData();
    }

    clone(): Response {
      return this.#like(this.#asOrdinary().clone().body);
    }

    #like(body: Body): Response {
      return new MeshResponse(body, this.#init, this.#origin) as unknown as Response;
    }

    #decode(): string {
      if (this.#read) throw new TypeError('the body of the answer has already been read');
      this.#read = true;
      return utf8.decode(this.#bytes);
    }

    #asOrdinary(): Response {
      if (this.#ordinary === undefined) {
        this.#ordinary = new Response(this.#bytes, this.#init);
        if (this.#read) void this.#ordinary.arrayBuffer();
      }
      return this.#ordinary;
    }
  }
  return MeshResponse as unknown as MeshResponseClass;
}

/**
 * The body that a Response of bytes has inside, which nobody sees who reads it by its own methods. Whoever takes those
 * of another Response to it gets an error, rather than an empty body.
 */
class SpareBody {
  #stream: ReadableStream | undefined = undefined;

  get stream(): ReadableStream {
    if (this.#stream === undefined || this.#stream.locked) this.#stream = this.#make();
    return this.#stream;
  }

  #make(): ReadableStream {
    return new ReadableStream(
      {
        pull: (controller) => {
          this.#stream = undefined;
          controller.error(new TypeError('the body can only be read by the methods of the Response itself'));
        },
      },
      { highWaterMark: 0 },
    );
  }
}
