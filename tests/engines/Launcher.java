import java.io.File;
import java.net.URL;
import java.net.URLClassLoader;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/**
 * Starts a program from the archives in some folders, without telling which they are. Beam's job
 * server for Flink sends all that it was started from to the cluster with every job, 180 MB for
 * each machine. A cluster that has them on its own class path needs none.
 *
 * <p>java Launcher.java FOLDER:FOLDER CLASS ARGUMENT...
 */
public class Launcher extends URLClassLoader {
  private Launcher(URL[] archives) {
    super(archives, ClassLoader.getPlatformClassLoader());
  }

  @Override
  public URL[] getURLs() {
    return new URL[0];
  }

  public static void main(String[] arguments) throws Exception {
    List<URL> archives = new ArrayList<>();
    for (String folder : arguments[0].split(File.pathSeparator)) {
      for (File file : new File(folder).listFiles()) {
        archives.add(file.toURI().toURL());
      }
    }
    Launcher loader = new Launcher(archives.toArray(new URL[0]));
    Thread.currentThread().setContextClassLoader(loader);
    String[] rest = Arrays.copyOfRange(arguments, 2, arguments.length);
    loader.loadClass(arguments[1]).getMethod("main", String[].class).invoke(null, (Object) rest);
  }
}
